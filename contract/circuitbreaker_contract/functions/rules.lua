-- The state machine: what is due, transitions, outcomes. The twin of rules.py, function by function.

-- A number in [0, 1) that is the same wherever it is computed; `math.random` repeats after each restart.
local function unit(text) return tonumber(string.sub(redis.sha1hex(text), 1, 6), 16) / 16777216 end

local function whole_text(number) return string.format('%d', number) end

-- Leases live in one sorted set: a live one at its expiry, an expired one at -expiry, a settled one at -(10^14 + when).
local function is_settled(score) return score <= -100000000000000 end

local function count_live(b, now)
  return redis.call('ZCOUNT', probes_key(b), '(' .. whole_text(now), '+inf')
end

-- When the next live lease ends, or nil without one. Read after the save, so that leases of this call are in it.
local function next_expiry(b, now)
  local first = redis.call('ZRANGEBYSCORE', probes_key(b), '(' .. whole_text(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return tonumber(first[2])
end

-- Where a lease stands in the set; 0 for one that is not known to this generation.
local function lease_score(b, lease)
  local score = tonumber(redis.call('ZSCORE', probes_key(b), lease) or 0)
  if b.leases_cleared and not is_settled(score) then return 0 end
  return score
end

-- How long until a call may be tried: 0 now, -1 when nothing but a person ends it. Slots full: jittered downwards, so
-- that waiters do not come back together.
local function retry_after_ms(b, now, salt)
  if b.state == CLOSED then return 0 end
  if b.state == OPEN then return b.openUntil == 0 and -1 or math.max(0, b.openUntil - now) end
  if b.live < b.rules.halfOpenLimit then return 0 end
  local expiry = next_expiry(b, now) or now
  local most = math.max(1, math.min(expiry - now, b.probeLength, FULL_RETRY_MS))
  return most - math.floor(most / 2 * unit(salt .. ':' .. whole_text(now)))
end

local function standing(b, now, salt)
  return {b.state, b.incarnation, b.generation, b.revision, retry_after_ms(b, now, salt)}
end

-- A message for those who listen.
local function note(b, now, previous, reason)
  b.notes[#b.notes + 1] = {previous = previous, state = b.state, reason = reason, generation = b.generation, at = now,
    retry = b.state == OPEN and (b.openUntil == 0 and -1 or math.max(0, b.openUntil - now)) or 0}
end

-- An entry for history, and a message.
local function record(b, now, previous)
  local calls, failures, slow = window_sums(b, now)
  b.moves[#b.moves + 1] = {
    'previous', previous, 'state', b.state, 'at', now, 'reason', b.reason, 'incarnation', b.incarnation,
    'generation', b.generation, 'attempt', b.attempt, 'consecutiveFailures', b.streak, 'openUntil', b.openUntil,
    'windowCalls', calls, 'windowFailures', failures, 'windowSlow', slow,
    'forced', b.forced, 'note', b.reason == 'Forced' and b.rules.overrideReason or '',
  }
  note(b, now, previous, b.reason)
end

-- How long the attempt-th opening in a row lasts. Whole numbers only, so that every implementation agrees; the jitter
-- comes from the opening's own name.
local function opening_length(b, attempt)
  local rules = b.rules
  if not rules.backoffFactor then return rules.recoveryTimeoutMs end
  local length = rules.recoveryTimeoutMs
  for _ = 2, math.min(attempt, 64) do length = math.min(rules.backoffMaxMs, length * rules.backoffFactor) end
  local u = unit(b.uid .. ':' .. whole_text(b.incarnation) .. ':' .. whole_text(b.generation))
  return math.floor(length * (1 - u * (rules.jitterPercent or 0) / 100))
end

local function forget_counts(b)
  set(b, 'attempt', 0)
  set(b, 'streak', 0)
  set(b, 'streakId', b.streakId + 1)
  clear_window(b)
end

-- The only way in which a state, `forced` or the mode changes. `keep`: counts stay although it is Closed.
local function transition(b, now, state, reason, keep)
  warm(b)
  local previous = b.state
  add(b, 'ms:' .. previous, math.max(0, now - b.countedAt))
  add(b, 't:' .. previous .. ':' .. state .. ':' .. reason, 1)
  set(b, 'countedAt', now)
  set(b, 'state', state)
  set(b, 'since', now)
  set(b, 'reason', reason)
  set(b, 'generation', b.generation + 1)
  set(b, 'probeSuccesses', 0)
  set(b, 'probesLost', 0)
  if state == OPEN and b.forced == OPEN then
    set(b, 'openLength', b.forcedLength)
    set(b, 'openUntil', b.forcedUntil)
  elseif state == OPEN then
    set(b, 'attempt', b.attempt + 1)
    set(b, 'openLength', opening_length(b, b.attempt))
    set(b, 'openUntil', now + b.openLength)
  else
    set(b, 'openUntil', 0)
    set(b, 'openLength', 0)
  end
  if state == HALF_OPEN then
    -- Leases of an earlier generation hold no slot here. Settled ones stay: their outcome may be sent again.
    op(b, 'ZREMRANGEBYSCORE', probes_key(b), '-10000000000000', '+inf')
    b.leases_cleared, b.live = true, 0
    set(b, 'probeLength', b.rules.probeTimeoutMs)
  end
  if state == CLOSED and not keep then forget_counts(b) end
  record(b, now, previous)
end

-- The shadow of mode Observe ------------------------------------------------------------------------------------------

local function shadow_moves(b, now, state, reason)
  set(b, 'shadowState', state)
  set(b, 'shadowSince', now)
  set(b, 'shadowReason', reason)
  set(b, 'shadowProbeSuccesses', 0)
  set(b, 'shadowOpenUntil', 0)
  set(b, 'shadowOpenLength', 0)
end

local function shadow_opens(b, now, reason)
  shadow_moves(b, now, OPEN, reason)
  set(b, 'shadowAttempt', b.shadowAttempt + 1)
  raise(b, 'shadowOpened', 1)
  set(b, 'shadowOpenLength', opening_length(b, b.shadowAttempt))
  set(b, 'shadowOpenUntil', now + b.shadowOpenLength)
  note(b, now, b.state, 'WouldHaveOpened')
end

local function shadow_closes(b, now, reason)
  shadow_moves(b, now, CLOSED, reason)
  set(b, 'shadowAttempt', 0)
  forget_counts(b)
end

local function shadow_begins(b, now)
  shadow_moves(b, now, CLOSED, '')
  set(b, 'shadowAttempt', 0)
  set(b, 'shadowOpened', 0)
  set(b, 'shadowNotPermitted', 0)
end

-- Overrides -----------------------------------------------------------------------------------------------------------

local function override_text(rules) return rules.overrideState .. ':' .. whole_text(rules.overrideUntil) end

local function force(b, now, state, till)
  set(b, 'forced', state)
  set(b, 'forcedUntil', till)
  set(b, 'forcedLength', till > 0 and till - now or 0)
  transition(b, now, state, 'Forced')
end

local function release(b, now)
  local was = b.forced
  set(b, 'forced', '')
  set(b, 'forcedUntil', 0)
  set(b, 'forcedLength', 0)
  transition(b, now, was == OPEN and HALF_OPEN or CLOSED, 'OverrideExpired')
end

-- Brings what is forced to what the policy asks for. An `until` that is past has no effect at all.
local function apply_override(b, now)
  local rules = b.rules
  local wanted, till = rules.overrideState, rules.overrideUntil
  if wanted and ((till > 0 and till <= now) or b.overrideEnded == override_text(rules)) then wanted = nil end
  if not wanted then
    if b.forced ~= '' then release(b, now) end
  elseif b.forced ~= wanted then
    force(b, now, wanted, till)
  elseif b.forcedUntil ~= till then
    set(b, 'forcedUntil', till)
    set(b, 'forcedLength', till > 0 and till - now or 0)
    if b.state == OPEN then
      set(b, 'openUntil', till)
      set(b, 'openLength', b.forcedLength)
    end
  end
end

-- Time ----------------------------------------------------------------------------------------------------------------

-- Law 8: an instant that lies farther ahead than its own length comes from a clock that has jumped back.
local function believe(b, now)
  if b.since > now then set(b, 'since', now) end
  if b.state == OPEN and b.openUntil > now + b.openLength then set(b, 'openUntil', now + b.openLength) end
  if b.forced ~= '' and warm(b).forcedUntil > now + b.forcedLength then set(b, 'forcedUntil', now + b.forcedLength) end
  if b.rules.mode == 'Observe' then
    warm(b)
    if b.shadowSince > now then set(b, 'shadowSince', now) end
    if b.shadowOpenUntil > now + b.shadowOpenLength then set(b, 'shadowOpenUntil', now + b.shadowOpenLength) end
  end
end

local function is_override_over(b, now) return b.forced ~= '' and b.forcedUntil > 0 and now >= b.forcedUntil end

local function is_opening_over(b, now) return b.state == OPEN and b.forced == '' and now >= b.openUntil end

local function is_shadow_due(b, now)
  return b.rules.mode == 'Observe' and b.shadowState == OPEN and now >= b.shadowOpenUntil
end

-- As many leases were lost in this generation as there are slots, and not one probe has succeeded.
local function are_probes_lost(b) return b.probeSuccesses == 0 and b.probesLost >= b.rules.halfOpenLimit end

local function expire_leases(b, now, spared)
  local key, farthest = probes_key(b), now + b.probeLength
  for _, lease in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. whole_text(farthest), '+inf')) do
    op(b, 'ZADD', key, farthest, lease)
    b.leases_changed = true
  end
  local ended = redis.call('ZRANGEBYSCORE', key, '(0', whole_text(now), 'WITHSCORES')
  for i = 1, #ended, 2 do
    if ended[i] ~= spared then
      op(b, 'ZADD', key, -tonumber(ended[i + 1]), ended[i])
      b.leases_changed = true
      set(b, 'probesLost', b.probesLost + 1)
      add(b, 'probesExpired', 1)
    end
  end
  b.live = count_live(b, now)
end

-- Does what is due. `spared`: the lease whose answer has just come; nobody noticed before that it had expired.
local function settle_time(b, now, spared)
  believe(b, now)
  if is_override_over(b, now) then
    set(b, 'overrideEnded', b.rules.overrideState and override_text(b.rules) or '')
    release(b, now)
  elseif is_opening_over(b, now) then
    transition(b, now, HALF_OPEN, 'RecoveryTimeoutElapsed')
  elseif b.state == HALF_OPEN then
    warm(b)
    expire_leases(b, now, spared)
    if are_probes_lost(b) then transition(b, now, OPEN, 'ProbesLost') end
  end
  if is_shadow_due(b, now) then shadow_moves(b, now, HALF_OPEN, 'RecoveryTimeoutElapsed') end
end

-- In how many ms something is due by itself, or -1. After the save.
local function due_in_ms(b, now)
  local instants = {}
  if b.forced ~= '' then
    if b.forcedUntil > 0 then instants[1] = b.forcedUntil end
  elseif b.state == OPEN then
    instants[1] = b.openUntil
  elseif b.state == HALF_OPEN then
    local expiry = next_expiry(b, now)
    if expiry then instants[1] = math.min(expiry, now + b.probeLength) end
  end
  if b.rules.mode == 'Observe' and b.shadowState == OPEN then instants[#instants + 1] = b.shadowOpenUntil end
  return #instants > 0 and math.max(0, math.min(unpack(instants)) - now) or -1
end

-- Counting ------------------------------------------------------------------------------------------------------------

local function same_generation(b, incarnation, generation)
  return incarnation == b.incarnation and generation == b.generation
end

-- Adds `count` outcomes to the totals of their letter.
local function add_totals(b, letter, count)
  if is_bad(letter) then raise(b, 'failures', count) else raise(b, 'successes', count) end
  if is_slow(letter) then raise(b, 'slow', count) end
end

-- How far back reporters of a rate are looked for.
local function rate_span(b) return b.rules.windowMs or COUNT_QUORUM_MS end

-- How many other clients have seen a bad outcome of each streak, a bad one and a slow one within the rates' time. What
-- lies ahead of `now` comes from a clock that has jumped back and does not count, as in the window.
local function others_of(b, now, client)
  if not b.others then
    local since, all = now - rate_span(b), reporters_of(b)
    b.others = {streak = {}, bad = 0, slow = 0}
    for i = 1, #all do
      local r = all[i]
      if r.client ~= client then
        if r.bad > 0 then b.others.streak[r.streakId] = (b.others.streak[r.streakId] or 0) + 1 end
        if r.bad > since and r.bad <= now then b.others.bad = b.others.bad + 1 end
        if r.slow > since and r.slow <= now then b.others.slow = b.others.slow + 1 end
      end
    end
  end
  return b.others
end

-- Whether enough clients have seen what a rule counts: `kind` is streak, bad (failures) or slow.
local function has_quorum(b, now, reporter, kind)
  local needed = b.rules.minReporters
  if needed <= 1 then return true end
  local others, own = others_of(b, now, reporter.client), nil
  if kind == 'streak' then
    own = reporter.bad > 0 and reporter.streakId == b.streakId
    return (others.streak[b.streakId] or 0) + (own and 1 or 0) >= needed
  end
  own = reporter[kind] > now - rate_span(b) and reporter[kind] <= now
  return others[kind] + (own and 1 or 0) >= needed
end

-- The first of `count` equal steps after which part/calls >= percent with at least minimumCalls, or nil. The sums move by
-- `step` and `grows` each time, so the comparison is linear in the number of steps.
local function first_at_rate(b, percent, part, step, grows, count)
  local calls = b.windowCalls
  local first = 1
  if calls + grows < b.rules.minimumCalls then
    if grows == 0 then return nil end
    first = b.rules.minimumCalls - calls
  end
  local start, slope = 100 * part - percent * calls, 100 * step - percent * grows
  if start + slope * first < 0 then
    if slope <= 0 then return nil end
    first = math.ceil(-start / slope)
  end
  return first <= count and first or nil
end

-- The first of `count` outcomes of `letter` at which a rule holds, with the rule's reason; nil when none does.
local function first_trip(b, now, reporter, letter, count, leaving)
  local rules, at, reason = b.rules, nil, nil
  if rules.failureThreshold > 0 and is_bad(letter) then
    local first = math.max(1, rules.failureThreshold - b.streak)
    if first <= count and has_quorum(b, now, reporter, 'streak') then at, reason = first, 'ConsecutiveFailures' end
  end
  local grows = leaving and 0 or 1
  if rules.failureRatePercent then
    local step = (is_bad(letter) and 1 or 0) - (leaving and is_bad(leaving) and 1 or 0)
    local first = first_at_rate(b, rules.failureRatePercent, b.windowFailures, step, grows, count)
    if first and (not at or first < at) and has_quorum(b, now, reporter, 'bad') then at, reason = first, 'FailureRate' end
  end
  if rules.slowCallRatePercent then
    local step = (is_slow(letter) and 1 or 0) - (leaving and is_slow(leaving) and 1 or 0)
    local first = first_at_rate(b, rules.slowCallRatePercent, b.windowSlow, step, grows, count)
    if first and (not at or first < at) and has_quorum(b, now, reporter, 'slow') then at, reason = first, 'SlowCallRate' end
  end
  return at, reason
end

-- Counts outcomes of one letter in Closed until a rule holds. Returns how many were counted, and the rule's reason.
local function count_run(b, now, reporter, letter, count)
  local used = 0
  if is_bad(letter) then
    reporter.bad, reporter.streakId = now, b.streakId
  elseif b.streak > 0 then
    set(b, 'streak', 0)
    set(b, 'streakId', b.streakId + 1)
  end
  if is_slow(letter) then reporter.slow = now end
  open_window(b, now)
  while used < count do
    local stretch, leaving = next_stretch(b, letter, count - used)
    local at, reason = first_trip(b, now, reporter, letter, stretch, leaving)
    local taken = at or stretch
    slide(b, now, letter, taken, leaving)
    if is_bad(letter) then set(b, 'streak', b.streak + taken) end
    used = used + taken
    if at then return used, reason end
  end
  return used, nil
end

-- One run in mode Observe: totals always; the rules run on the shadow, and its probes are the outcomes in order.
local function observe_run(b, now, reporter, letter, count)
  add_totals(b, letter, count)
  while count > 0 do
    local used = count
    if b.shadowState == OPEN then
      raise(b, 'shadowNotPermitted', count)
    elseif b.shadowState == CLOSED then
      local reason
      used, reason = count_run(b, now, reporter, letter, count)
      if reason then shadow_opens(b, now, reason) end
    elseif is_bad(letter) or (letter == 'L' and b.rules.slowCallRatePercent) then
      used = 1
      shadow_opens(b, now, 'ProbeFailed')
    else
      used = math.min(count, math.max(1, b.rules.successThreshold - b.shadowProbeSuccesses))
      raise(b, 'shadowProbeSuccesses', used)
      if b.shadowProbeSuccesses >= b.rules.successThreshold then shadow_closes(b, now, 'ProbesSucceeded') end
    end
    count = count - used
  end
end

-- A batch of the breaker's own generation or of another one, in order.
local function count_batch(b, now, reporter, runs, current)
  b.runs = runs
  for _, run in ipairs(runs) do
    local letter, count = run[1], run[2]
    if letter == 'N' then
      add(b, 'notPermitted', count)
    elseif letter == 'I' then
      add(b, 'ignored', count)
    elseif b.state ~= CLOSED or not current(b) then
      add(b, 'late', count)
    elseif b.forced == CLOSED then
      add_totals(b, letter, count)
    else
      if b.rules.mode == 'Observe' then
        observe_run(b, now, reporter, letter, count)
      else
        local used, reason = count_run(b, now, reporter, letter, count)
        add_totals(b, letter, used)
        add(b, 'late', count - used)
        if reason then transition(b, now, OPEN, reason) end
      end
    end
  end
end

-- Whether a client may make room for another one: nothing that it saw can matter to a rule any more.
local function is_forgettable(b, now, r)
  if b.streak > 0 and r.bad > 0 and r.streakId == b.streakId then return false end
  return r.seen < now - math.max(REPORTER_KEPT_MS, b.rules.windowMs or 0)
end

-- Those that may be forgotten go, and of a full house those unseen for longest, a tenth at once.
local function make_room(b, now)
  local gone, kept, all = {}, {}, reporters_of(b)
  for i = 1, #all do
    if is_forgettable(b, now, all[i]) then gone[#gone + 1] = 'c:' .. all[i].client else kept[#kept + 1] = all[i] end
  end
  local over = #kept >= MAX_REPORTERS and #kept - MAX_REPORTERS * 9 / 10 or 0
  if over > 0 then
    table.sort(kept, function(one, other)
      if one.seen ~= other.seen then return one.seen < other.seen end
      return one.client < other.client
    end)
    for i = 1, over do gone[#gone + 1] = 'c:' .. kept[i].client end
  end
  if #gone > 0 then op(b, 'HDEL', b.key, unpack(gone)) end
  set(b, 'reportersKept', #kept - over)
  set(b, 'reportersSweptAt', now)
end

-- Remembers a client. A new one makes room when the house is full or nobody has looked for long, and not each time: a
-- fleet of more clients than are kept would otherwise pay for a look at all of them with every call.
local function touch(b, now, reporter)
  if not reporter.known then
    local swept = warm(b).reportersSweptAt
    if b.reportersKept >= MAX_REPORTERS or now >= swept + REPORTER_KEPT_MS or now < swept then make_room(b, now) end
    raise(b, 'reportersKept', 1)
  end
  reporter.seen = now
  b.touched = reporter
end
