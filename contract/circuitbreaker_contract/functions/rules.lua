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
  b.live = 0
  believe(b, now)
  if is_override_over(b, now) then
    set(b, 'overrideEnded', b.rules.overrideState and override_text(b.rules) or '')
    release(b, now)
  elseif is_opening_over(b, now) then
    transition(b, now, HALF_OPEN, 'RecoveryTimeoutElapsed')
  elseif b.state == HALF_OPEN then
    warm(b)
    expire_leases(b, now, spared)
    if b.probeSuccesses == 0 and b.probesLost >= b.rules.halfOpenLimit then transition(b, now, OPEN, 'ProbesLost') end
  elseif is_shadow_due(b, now) then
    shadow_moves(b, now, HALF_OPEN, 'RecoveryTimeoutElapsed')
  end
end

-- In how many ms something is due by itself, or -1. After the save.
local function due_in_ms(b, now)
  if b.forced ~= '' then return b.forcedUntil > 0 and math.max(0, b.forcedUntil - now) or -1 end
  if b.state == OPEN then return math.max(0, b.openUntil - now) end
  if b.state == HALF_OPEN then
    local expiry = next_expiry(b, now)
    return expiry and math.min(expiry - now, b.probeLength) or -1
  end
  if b.rules.mode == 'Observe' and b.shadowState == OPEN then return math.max(0, b.shadowOpenUntil - now) end
  return -1
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

-- Which clients have seen a bad outcome, the one who reports apart: of the present streak, and within the rates' time.
-- Looked up once a call, and only where a quorum is asked for.
local function others_bad(b, now, client)
  if not b.others then
    local since = now - (b.rules.windowMs or COUNT_QUORUM_MS)
    b.others = {streak = {}, rate = 0}
    local all = redis.call('HGETALL', reporters_key(b))
    for i = 1, #all, 2 do
      local bad, id = string.match(all[i + 1], '^%d+:%d+:(%d+):(%d+)$')
      bad, id = tonumber(bad or 0), tonumber(id or 0)
      if all[i] ~= client and bad > 0 then
        b.others.streak[id] = (b.others.streak[id] or 0) + 1
        if bad > since then b.others.rate = b.others.rate + 1 end
      end
    end
  end
  return b.others
end

local function has_quorum(b, now, reporter, by_rate)
  local needed = b.rules.minReporters
  if needed <= 1 then return true end
  local others = others_bad(b, now, reporter.client)
  if by_rate then
    local own = reporter.bad > now - (b.rules.windowMs or COUNT_QUORUM_MS) and 1 or 0
    return others.rate + own >= needed
  end
  local own = reporter.bad > 0 and reporter.streakId == b.streakId and 1 or 0
  return (others.streak[b.streakId] or 0) + own >= needed
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
    if first <= count and has_quorum(b, now, reporter, false) then at, reason = first, 'ConsecutiveFailures' end
  end
  local grows = leaving and 0 or 1
  if rules.failureRatePercent then
    local step = (is_bad(letter) and 1 or 0) - (leaving and is_bad(leaving) and 1 or 0)
    local first = first_at_rate(b, rules.failureRatePercent, b.windowFailures, step, grows, count)
    if first and (not at or first < at) and has_quorum(b, now, reporter, true) then at, reason = first, 'FailureRate' end
  end
  if rules.slowCallRatePercent then
    local step = (is_slow(letter) and 1 or 0) - (leaving and is_slow(leaving) and 1 or 0)
    local first = first_at_rate(b, rules.slowCallRatePercent, b.windowSlow, step, grows, count)
    if first and (not at or first < at) and has_quorum(b, now, reporter, true) then at, reason = first, 'SlowCallRate' end
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

-- At most so many outcomes of a batch can go through the window.
local function incoming(b, runs)
  local total, most = 0, b.rules.windowCalls
  if not most then return 0 end
  for _, run in ipairs(runs) do
    if run[1] ~= 'N' and run[1] ~= 'I' then total = total + math.min(run[2], most) end
  end
  return total
end

-- A batch of the breaker's own generation or of another one, in order.
local function count_batch(b, now, reporter, runs, current)
  for _, run in ipairs(runs) do
    local letter, count = run[1], run[2]
    if letter == 'N' then
      raise(b, 'notPermitted', count)
    elseif letter == 'I' then
      raise(b, 'ignored', count)
    elseif b.state ~= CLOSED or not current(b) then
      raise(b, 'late', count)
    elseif b.forced == CLOSED then
      add_totals(b, letter, count)
    else
      if not b.window then open_window(b, now, incoming(b, runs)) end
      if b.rules.mode == 'Observe' then
        observe_run(b, now, reporter, letter, count)
      else
        local used, reason = count_run(b, now, reporter, letter, count)
        add_totals(b, letter, used)
        raise(b, 'late', count - used)
        if reason then transition(b, now, OPEN, reason) end
      end
    end
  end
end

-- What is known of a client: the last batch seen of it, when it last saw a bad outcome and in which streak. The first
-- edition did not write the streak: a batch that is sent again across the change still counts once.
local function reporter_of(b, client)
  local raw = redis.call('HGET', reporters_key(b), client)
  local seq, bad, id = string.match(raw or '', '^(%d+):%d+:(%d+):?(%d*)$')
  return {client = client, known = seq ~= nil, seq = tonumber(seq or 0), bad = tonumber(bad or 0),
    streakId = tonumber(id) or 0}
end

-- Remembers a client. A new one makes room: those unseen for long go, and the one unseen for longest when it is full.
local function touch(b, now, reporter)
  local key = reporters_key(b)
  if not reporter.known then
    local all = redis.call('HGETALL', key)
    local kept, oldest, oldest_seen = 0, nil, nil
    for i = 1, #all, 2 do
      local seen = tonumber(string.match(all[i + 1], '^%d+:(%d+):') or 0)
      if seen < now - REPORTER_KEPT_MS then
        op(b, 'HDEL', key, all[i])
      else
        kept = kept + 1
        if not oldest_seen or seen < oldest_seen or (seen == oldest_seen and all[i] < oldest) then
          oldest, oldest_seen = all[i], seen
        end
      end
    end
    if kept >= MAX_REPORTERS then op(b, 'HDEL', key, oldest) end
  end
  op(b, 'HSET', key, reporter.client,
    string.format('%d:%d:%d:%d', reporter.seq, now, reporter.bad, reporter.streakId))
  op(b, 'PEXPIRE', key, KEPT_MS)
end
