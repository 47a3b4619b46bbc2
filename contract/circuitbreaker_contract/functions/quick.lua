-- The two calls that come by the thousand, in locals alone: outcomes that open nothing, and refusals of an open breaker.
-- Whatever else there is to do (something is due, a rule may hold, a client is new, another generation is meant, a bucket
-- ends) they leave to the general way, with nothing changed, and that decides. They cost a third of it.

-- What Redis gives a running function, looked up once: its globals are not there while a library loads, and each look at
-- them goes through a metatable.
local call, find, sub, gsub, take_apart, put_together

local function look_up()
  call, find, sub, gsub = redis.call, string.find, string.sub, string.gsub
  take_apart, put_together = struct.unpack, struct.pack
end

-- Whether a rate may be reached on the way through a run: no step of it has more than `most` of `calls` at the least.
local function may_reach(percent, most, calls) return percent and 100 * most >= percent * calls end

-- The letters at the edges of a full count window when its head is used up or its tail too long: the tail goes into the
-- ring, the next ones come from it. Returns them, and how many are head.
local function turned_over(key, size, at, letters, edge)
  if #letters == size then return letters, size end  -- that is the whole window
  local ring = key .. ':window'
  write_ring(ring, size, (at - (#letters - edge)) % size, sub(letters, edge + 1))
  letters = read_ring(ring, size, at, math.min(EDGE, size))
  return letters, #letters
end

-- The standing after a batch that leaves a Closed breaker Closed, or nil: nothing has changed.
local function report_quickly(key, args)
  if not call then look_up() end
  local field, runs, number = client_fields[args[1]], known_batches[args[5]], whole(args[2])
  if not field or not runs or not number then return nil end
  local stored = call('HMGET', key, 'hot', field)
  local hot, entry = stored[1], stored[2]
  if not entry or not hot or #entry ~= REPORTER_SIZE or #hot < HOT_SIZE then return nil end
  local word, incarnation, generation, revision, policy_id, since, streak, streak_id, calls, failed, slow, at, bucket_calls,
    bucket_failures, bucket_slow, successes, failures, slow_calls, edge = take_apart(QUICK_FORMAT, hot)
  local seq, _, bad_at, bad_streak, slow_at = take_apart(REPORTER_FORMAT, entry)
  local rules = policies_by_id[policy_id]
  if word ~= COUNTING or not rules or number <= seq or known_wholes[args[3]] ~= incarnation
    or known_wholes[args[4]] ~= generation then return nil end
  local now = clock_ms()
  if since > now then return nil end
  local size, letters = rules.windowCalls, nil
  if size then
    letters = sub(hot, HOT_SIZE + 1)
  else
    local bucket = now * BUCKETS / rules.windowMs
    if bucket < at or bucket >= at + 1 then return nil end
  end
  local threshold, minimum, failure_rate, slow_rate = rules.failureThreshold, rules.minimumCalls, rules.failureRatePercent,
    rules.slowCallRatePercent
  for i = 1, #runs do
    local run = runs[i]
    local letter, count, failing, slowing = run[1], run[2], run[3], run[4]
    if not failing then return nil end
    local grown = calls + count
    if failing > 0 then
      streak, failures, bad_at, bad_streak = streak + count, failures + count, now, streak_id
      if threshold > 0 and streak >= threshold then return nil end
    else
      successes = successes + count
      if streak > 0 then streak, streak_id = 0, streak_id + 1 end
    end
    if slowing > 0 then slow_calls, slow_at = slow_calls + count, now end
    if grown >= minimum and (may_reach(failure_rate, failed + failing, calls) or may_reach(slow_rate, slow + slowing, calls))
    then return nil end
    if not size then
      bucket_calls, bucket_failures, bucket_slow = bucket_calls + count, bucket_failures + failing, bucket_slow + slowing
      calls = grown
    elseif calls < size or failed > 0 or slow > 0 or letter ~= 'S' then  -- else all are alike, and the window stays as it is
      if not run[5] then return nil end
      if grown <= size then
        if #letters - edge + count > EDGE then return nil end
        calls = grown
      else
        if calls < size then return nil end
        if count > edge or #letters - edge + count > EDGE then letters, edge = turned_over(key, size, at, letters, edge) end
        if count > edge then return nil end
        local leaving = sub(letters, 1, count)
        letters, edge = sub(letters, count + 1), edge - count
        if find(leaving, '[FLM]') then
          local _, failures_gone = gsub(leaving, '[FM]', '')
          local _, slow_gone = gsub(leaving, '[LM]', '')
          failed, slow = failed - failures_gone, slow - slow_gone
        end
      end
      letters, at = letters .. run[5], (at + count) % size
    end
    failed, slow = failed + failing, slow + slowing
  end
  hot = sub(hot, 1, QUICK_FROM) .. put_together(QUICK_REST, streak, streak_id, calls, failed, slow, at, bucket_calls,
    bucket_failures, bucket_slow, successes, failures, slow_calls, edge) .. sub(hot, QUICK_TO + 1, HOT_SIZE) .. (letters or '')
  call('HSET', key, 'hot', hot, field, put_together(REPORTER_FORMAT, number, now, bad_at, bad_streak, slow_at))
  return {CLOSED, incarnation, generation, revision, 0}
end

-- The refusal of a breaker that is open by itself, or nil: nothing was done.
local function refuse_quickly(key)
  if not call then look_up() end
  local hot = call('HGET', key, 'hot')
  if not hot or #hot < HOT_SIZE then return nil end
  local word, incarnation, generation, revision, policy_id, since = take_apart('<dddddd', hot)
  if word ~= REFUSING or not policies_by_id[policy_id] then return nil end
  local open_until, open_length = take_apart('<dd', hot, QUICK_TO + 1)
  local now = clock_ms()
  if since > now or open_until <= now or open_until > now + open_length then return nil end
  call('HINCRBY', key, 'notPermitted', '1')
  return {OPEN, incarnation, generation, revision, open_until - now, 'NotPermitted', 0}
end
