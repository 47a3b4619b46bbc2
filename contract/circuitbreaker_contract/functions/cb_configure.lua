-- cb_configure: puts a policy in force; makes the breaker when there is none.
--   KEYS   breaker   ARGS  owner, uid, generation, policy, project, [resume]   WRITES  yes
--   REPLY  {state, incarnation, generation, revision, retry_after_ms, result}
--   ERRORS CBARG    an argument has the wrong form; the text names it
--          CBOWNER  the breaker belongs to another owner
-- result: Created, Restored, Replaced (another uid was there), Updated, Unchanged, Stale (an older generation of the
-- resource; nothing done). policy and resume are JSON; resume is used when there is no breaker, or when the one there is
-- lower in the order. An edit never causes a transition by itself: rules are tested at
-- the next outcome, leases given stay, counts stay; while Open the opening's end is measured anew from its beginning. What
-- makes a transition is a change of mode (to Closed) and an override that comes or goes.

local RESUME_NUMBERS = {'incarnation', 'generation', 'since', 'openUntil', 'attempt'}

-- {lastReset} or the whole state to start from, or nil and what is wrong.
local function parse_resume(text)
  local raw = parse_object(text)
  if not raw then return nil, 'not a JSON object' end
  local resume = {lastReset = given(raw.lastReset, ''), state = raw.state}
  if type(resume.lastReset) ~= 'string' or (resume.lastReset ~= '' and not is_id(resume.lastReset)) then
    return nil, 'lastReset: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"'
  end
  if resume.state == nil then return resume end
  if resume.state ~= CLOSED and resume.state ~= OPEN and resume.state ~= HALF_OPEN then
    return nil, 'state: must be Closed, Open or HalfOpen'
  end
  resume.forced = given(raw.forced, '')
  if resume.forced ~= '' and resume.forced ~= OPEN and resume.forced ~= CLOSED then
    return nil, 'forced: must be Open, Closed or empty'
  end
  if resume.forced ~= '' and resume.forced ~= resume.state then return nil, 'forced: must be the state' end
  for _, name in ipairs(RESUME_NUMBERS) do
    local value = given(raw[name], 0)
    if type(value) ~= 'number' or value % 1 ~= 0 or value < 0 or value > 9000000000000 then
      return nil, name .. ': must be a whole number from 0 to 9000000000000'
    end
    resume[name] = value
  end
  return resume
end

local function begin(key, now, owner, uid, generation, rules, project_flag, resume, least_incarnation)
  local b = blank(key, rules, rules.text)
  b.warmed, b.window_cleared, b.reporters = true, true, {}
  for i = 1, #PACKED_NUMBERS do b[PACKED_NUMBERS[i]] = 0 end
  for i = 1, #COLD_NUMBERS do b[COLD_NUMBERS[i]] = 0 end
  local resumed = resume and resume.state and true or false
  local state = resumed and resume.state or CLOSED
  local fields = {
    owner = owner, uid = uid, resourceGeneration = generation, project = project_flag,
    incarnation = math.max(now, least_incarnation), revision = 1, countedAt = now,
    generation = resumed and resume.generation + 1 or 1,
    state = state, reason = resumed and 'Restored' or 'Created',
    since = resumed and math.min(resume.since, now) or now,
    attempt = resumed and state ~= CLOSED and resume.attempt or 0,
    lastReset = resume and resume.lastReset or '', forced = resumed and resume.forced or '', overrideEnded = '',
    shadowState = CLOSED, shadowReason = '', shadowSince = now,
  }
  op(b, 'DEL', key, window_key(b), probes_key(b), history_key(b))
  for name, value in pairs(fields) do
    b[name] = value
    if not PART[name] then b.changed[name] = value end
  end
  b.changed.policy, b.dirty = rules.text, {standing = true, counts = true}
  if b.forced ~= '' then
    local till = rules.overrideState and rules.overrideUntil or 0
    set(b, 'forcedUntil', till)
    set(b, 'forcedLength', till > 0 and math.max(0, till - now) or 0)
  end
  if state == OPEN and b.forced == OPEN then
    set(b, 'openLength', b.forcedLength)
    set(b, 'openUntil', b.forcedUntil)
  elseif state == OPEN then
    set(b, 'attempt', math.max(1, b.attempt))
    set(b, 'openLength', opening_length(b, b.attempt))
    set(b, 'openUntil', math.max(1, math.min(resume.openUntil, now + b.openLength)))
  elseif state == HALF_OPEN then
    set(b, 'probeLength', rules.probeTimeoutMs)
  end
  record(b, now, '')
  if rules.mode == 'Observe' and b.state ~= CLOSED then
    set(b, 'forced', '')  -- Observe never refuses, whatever held the breaker before
    set(b, 'forcedUntil', 0)
    set(b, 'forcedLength', 0)
    transition(b, now, CLOSED, 'ModeChanged')
  end
  apply_override(b, now)
  return b, resumed
end

-- Another policy for a breaker that is there.
local function edit(b, now, rules)
  local old = b.rules
  reshape_window(b, old, rules)
  b.rules, b.policy, b.changed.policy = rules, rules.text, rules.text
  set(b, 'revision', b.revision + 1)
  local generation = b.generation
  if old.mode ~= rules.mode then
    shadow_begins(b, now)
    if b.forced ~= '' and rules.overrideState ~= b.forced then
      set(b, 'forced', '')
      set(b, 'forcedUntil', 0)
      set(b, 'forcedLength', 0)
    end
    transition(b, now, CLOSED, 'ModeChanged', rules.mode == 'Observe' and b.state == CLOSED)
  end
  local same_length = old.recoveryTimeoutMs == rules.recoveryTimeoutMs and old.backoffFactor == rules.backoffFactor
    and old.backoffMaxMs == rules.backoffMaxMs and old.jitterPercent == rules.jitterPercent
  if b.state == OPEN and b.forced == '' and not same_length then
    set(b, 'openLength', opening_length(b, b.attempt))
    set(b, 'openUntil', b.since + b.openLength)
  end
  if rules.mode == 'Observe' and b.shadowState == OPEN and not same_length then
    set(b, 'shadowOpenLength', opening_length(b, b.shadowAttempt))
    set(b, 'shadowOpenUntil', b.shadowSince + b.shadowOpenLength)
  end
  if not rules.overrideState then set(b, 'overrideEnded', '') end
  apply_override(b, now)
  if b.generation == generation then note(b, now, b.state, 'PolicyApplied') end
end

local function configure(keys, args)
  local wrong = wrong_call(keys, args, 5, 6)
  if wrong then return wrong end
  local key, owner, uid, generation = keys[1], args[1], args[2], whole(args[3])
  if not is_id(owner) then return refuse('owner: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  if not is_id(uid) then return refuse('uid: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  if not generation then return refuse('generation: must be a whole number') end
  local rules, policy_error = parse_policy(args[4])
  if not rules then return refuse('policy: ' .. policy_error) end
  if args[5] ~= '0' and args[5] ~= '1' and args[5] ~= '2' then return refuse('project: must be 0, 1 or 2') end
  local project_flag, resume, resume_error = tonumber(args[5]), nil, nil
  if args[6] then
    resume, resume_error = parse_resume(args[6])
    if not resume then return refuse('resume: ' .. resume_error) end
  end

  local stored_owner = redis.call('HGET', key, 'owner') or owner
  if stored_owner ~= owner and stored_owner ~= ENV then
    return redis.error_reply('CBOWNER the breaker belongs to owner ' .. cut(stored_owner))
  end
  local now, result = clock_ms(), 'Unchanged'
  local b = read(key)
  if b then warm(b) end
  -- Redis went back in time (a lossy fail-over, an old dump): clients know a higher order and may not take a lower one,
  -- so the breaker begins again where its status last was.
  local behind = b and b.uid == uid and resume and resume.state and (resume.incarnation > b.incarnation
    or resume.incarnation == b.incarnation and resume.generation > b.generation)
  if b and b.uid == uid and not behind then
    settle_time(b, now)
    if generation < b.resourceGeneration then
      result = 'Stale'
    else
      set(b, 'resourceGeneration', generation)
      set(b, 'project', project_flag)
      if rules.text ~= b.policy then
        result = 'Updated'
        edit(b, now, rules)
      end
    end
  else
    local last = b and b.incarnation or damaged_incarnation(key)
    local least = math.max(last, resume and resume.incarnation or 0) + 1
    local replaced = b ~= nil and not behind
    if replaced and resume then resume.state = nil end
    local resumed
    b, resumed = begin(key, now, owner, uid, generation, rules, project_flag, resume, least)
    result = replaced and 'Replaced' or resumed and 'Restored' or 'Created'
  end
  save(b)
  local reply = standing(b, now, uid)
  reply[6] = result
  return reply
end

redis.register_function{function_name = 'cb_configure', callback = configure}
