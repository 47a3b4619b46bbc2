-- The state machine: what is due, transitions, outcomes. The twin of rules.py, function by function.

-- A number in [0, 1) that is the same wherever it is computed; `math.random` repeats after each restart.
local function unit(text) return tonumber(string.sub(redis.sha1hex(text), 1, 6), 16) / 16777216 end

-- Leases live in one sorted set: a live one at its expiry, an expired one at -expiry, a settled one at -(10^14 + when).
local function is_settled(score) return score <= -100000000000000 end

local function count_live(b, now)
  return redis.call('ZCOUNT', probes_key(b), '(' .. string.format('%d', now), '+inf')
end

-- When the next live lease ends, or nil without one. Read after the save, so that leases of this call are in it.
local function next_expiry(b, now)
  local first = redis.call('ZRANGEBYSCORE', probes_key(b), '(' .. string.format('%d', now), '+inf',
    'WITHSCORES', 'LIMIT', 0, 1)
  return tonumber(first[2])
end

-- Where a lease stands in the set; 0 for one that is not known to this generation.
local function lease_score(b, lease)
  local score = tonumber(redis.call('ZSCORE', probes_key(b), lease) or 0)
  if b.leases_cleared and not is_settled(score) then return 0 end
  return score
end

-- How long until a call may be tried: 0 now. Slots full: jittered downwards, so that waiters do not come back together.
local function retry_after_ms(b, now, salt)
  if b.state == OPEN then return math.max(0, b.openUntil - now) end
  if b.state == CLOSED or b.live < b.rules.halfOpenLimit then return 0 end
  local expiry = next_expiry(b, now) or now
  local most = math.max(1, math.min(expiry - now, b.probeLength, FULL_RETRY_MS))
  return most - math.floor(most / 2 * unit(salt .. ':' .. string.format('%d', now)))
end

local function standing(b, now, salt)
  return {b.state, b.incarnation, b.generation, b.revision, retry_after_ms(b, now, salt)}
end

-- An entry for history, and a message for those who listen.
local function record(b, now, previous)
  b.moves[#b.moves + 1] = {
    'previous', previous, 'state', b.state, 'at', now, 'reason', b.reason, 'incarnation', b.incarnation,
    'generation', b.generation, 'attempt', b.attempt, 'consecutiveFailures', b.streak, 'openUntil', b.openUntil,
  }
  b.notes[#b.notes + 1] = {previous = previous, state = b.state, reason = b.reason, generation = b.generation, at = now,
    retry = b.state == OPEN and math.max(0, b.openUntil - now) or 0}
end

local function transition(b, now, state, reason)
  local previous = b.state
  add(b, 'ms:' .. previous, now - b.countedAt)
  add(b, 't:' .. previous .. ':' .. state .. ':' .. reason, 1)
  set(b, 'countedAt', now)
  set(b, 'state', state)
  set(b, 'since', now)
  set(b, 'reason', reason)
  set(b, 'generation', b.generation + 1)
  set(b, 'probeSuccesses', 0)
  set(b, 'probesLost', 0)
  if state == OPEN then
    set(b, 'attempt', b.attempt + 1)
    set(b, 'openLength', b.rules.recoveryTimeoutMs)
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
  if state == CLOSED then
    set(b, 'attempt', 0)
    set(b, 'streak', 0)
  end
  record(b, now, previous)
end

-- Law 8: an instant that lies farther ahead than its own length comes from a clock that has jumped back.
local function believe(b, now)
  if b.since > now then set(b, 'since', now) end
  if b.countedAt > now then set(b, 'countedAt', now) end
  if b.state == OPEN and b.openUntil > now + b.openLength then set(b, 'openUntil', now + b.openLength) end
end

local function expire_leases(b, now, spared)
  local key, farthest = probes_key(b), now + b.probeLength
  for _, lease in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. string.format('%d', farthest), '+inf')) do
    op(b, 'ZADD', key, farthest, lease)
    b.leases_changed = true
  end
  local ended = redis.call('ZRANGEBYSCORE', key, '(0', string.format('%d', now), 'WITHSCORES')
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
  if b.state == OPEN and now >= b.openUntil then
    transition(b, now, HALF_OPEN, 'RecoveryTimeoutElapsed')
  elseif b.state == HALF_OPEN then
    expire_leases(b, now, spared)
    if b.probeSuccesses == 0 and b.probesLost >= b.rules.halfOpenLimit then transition(b, now, OPEN, 'ProbesLost') end
  end
end

-- Adds `count` outcomes to the totals of their letter.
local function add_totals(b, letter, count)
  if letter == 'S' or letter == 'L' then raise(b, 'successes', count) end
  if letter == 'F' or letter == 'M' then raise(b, 'failures', count) end
  if letter == 'L' or letter == 'M' then raise(b, 'slow', count) end
end

-- One run of outcomes in Closed, as if each came alone. Returns how many of them came after a transition.
local function count_run(b, now, letter, count)
  if letter == 'S' or letter == 'L' then
    add_totals(b, letter, count)
    set(b, 'streak', 0)
    return 0
  end
  local used = math.min(count, math.max(1, b.rules.failureThreshold - b.streak))
  add_totals(b, letter, used)
  set(b, 'streak', b.streak + used)
  if b.streak >= b.rules.failureThreshold then transition(b, now, OPEN, 'ConsecutiveFailures') end
  return count - used
end

local function same_generation(b, incarnation, generation)
  return incarnation == b.incarnation and generation == b.generation
end

-- Remembers a client: which of its batches were seen, when it was last here and when it last saw a failure.
local function touch(b, now, client, seq, bad)
  local key = reporters_key(b)
  if not b.reporter then
    local all = redis.call('HGETALL', key)
    local kept, oldest, oldest_seen = 0, nil, nil
    for i = 1, #all, 2 do
      local seen = tonumber(string.match(all[i + 1], '^%d+:(%d+):%d+$') or 0)
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
  op(b, 'HSET', key, client, string.format('%d:%d:%d', seq, now, bad))
  op(b, 'PEXPIRE', key, KEPT_MS)
end

-- What is known of a client: the last batch seen of it, and its last failure; {0, 0} for a new one.
local function reporter_of(b, client)
  local raw = redis.call('HGET', reporters_key(b), client)
  local seq, bad = string.match(raw or '', '^(%d+):%d+:(%d+)$')
  b.reporter = seq ~= nil
  return tonumber(seq or 0), tonumber(bad or 0)
end
