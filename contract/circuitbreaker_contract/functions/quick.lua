-- The two calls that come by the thousand, in locals alone: outcomes that open nothing, and refusals of an open breaker.
-- Whatever else there is to do (something is due, a rule may hold, a client is new, another generation is meant, a bucket
-- ends) they leave to the general way, with nothing changed, and that decides. They cost a third of it.

-- What Redis gives a running function, looked up once: its globals are not there while a library loads, and each look at
-- them goes through a metatable.
local call, sub, take_apart, put_together

local function look_up()
  call, sub, take_apart, put_together = redis.call, string.sub, struct.unpack, struct.pack
end

local known_letters = {}  -- short ones, which come again and again

-- How many failures and how many slow calls letters hold.
local function worth(letters)
  local _, failures = string.gsub(letters, '[FM]', '')
  local _, slow = string.gsub(letters, '[LM]', '')
  local found = {failures, slow}
  if #letters <= 16 then
    if is_full('letters', 1000) then known_letters = {} end
    known_letters[letters] = found
  end
  return found
end

-- The next letters that leave a full count window whose head is used up, when its tail (from byte `from` of `counts` on)
-- has gone into the ring; nil when the ring was lost. `at`: where in the ring the next letter goes.
local function next_head(key, size, at, counts, from)
  local tail = sub(counts, from)
  if #tail == size then return tail end  -- that is the whole window
  local ring = key .. ':window'
  write_ring(ring, size, (at - #tail) % size, tail)
  local head = read_ring(ring, size, at, math.min(EDGE, size))
  return are_letters(head, math.min(EDGE, size)) and head or nil
end

local known_standings = {}  -- by their text, which seldom changes

-- What a packed standing says, or nil when its policy has not been read yet.
local function known_standing(text)
  if #text ~= STANDING_SIZE then return nil end
  local word, incarnation, generation, revision, since, open_until, open_length, _, policy_id =
    take_apart(STANDING_FORMAT, text)
  local rules = policies_by_id[policy_id]
  if not rules then return nil end
  if is_full('standings', 10000) then known_standings = {} end
  local found = {word = word, rules = rules, since = since, incarnation = incarnation, generation = generation,
    open_until = open_until, open_length = open_length,
    reply = word == COUNTING and {CLOSED, incarnation, generation, revision, 0}
      or {OPEN, incarnation, generation, revision, 0, 'NotPermitted', 0}}
  known_standings[text] = found
  return found
end

-- The standing after a batch that leaves a Closed breaker Closed, or nil: nothing has changed.
local function report_quickly(key, args, runs)
  if not call then look_up() end
  local field, number = client_fields[args[1]], whole(args[2])
  if not field or not number then return nil end
  local stored = call('HMGET', key, 'standing', 'counts', field)
  local standing_part, counts, entry = stored[1], stored[2], stored[3]
  if not entry or not counts or not standing_part or #entry ~= REPORTER_SIZE then return nil end
  local known = known_standings[standing_part] or known_standing(standing_part)
  if not known or known.word ~= COUNTING then return nil end
  local rules, incarnation, generation = known.rules, known.incarnation, known.generation
  if known_wholes[args[3]] ~= incarnation or known_wholes[args[4]] ~= generation then return nil end
  local seq, _, bad_at, bad_streak, slow_at = take_apart(REPORTER_FORMAT, entry)
  local now = clock_ms()
  if number <= seq or known.since > now then return nil end
  local size, from, source, offset, added = rules.windowCalls, nil, nil, nil, nil
  if #counts < (size and LETTERS_SIZE or TIME_SIZE) then return nil end
  -- The last three are a time window's bucket; in a count window the first of them is how many letters of the head are left.
  local streak, streak_id, calls, failed, slow, at, successes, failures, slow_calls, left, bucket_failures, bucket_slow =
    take_apart(size and '<dddddddddd' or TIME_FORMAT, counts)
  if size then
    -- The letters: `left` of the head from `offset` of `source` on, then the tail from `from` of `counts` on.
    offset, source, from = LETTERS_SIZE, counts, LETTERS_SIZE + 1
    if left > 0 then
      from = from + (size < EDGE and size or EDGE)
      offset = from - 1 - left
    end
    if calls == size and runs.calls > left and (failed > 0 or slow > 0 or runs.calls > runs.plain) then
      source, offset = next_head(key, size, at, counts, from), 0
      if not source then return nil end
      left, from = #source, #counts + 1
    end
    if #counts + 1 - from + runs.calls > EDGE then return nil end
  else
    local bucket = now * BUCKETS / rules.windowMs
    if bucket < at or bucket >= at + 1 then return nil end
  end
  local threshold, minimum, failure_rate, slow_rate = rules.failureThreshold, rules.minimumCalls, rules.failureRatePercent,
    rules.slowCallRatePercent
  for i = 1, #runs do
    local run = runs[i]
    local count, failing, slowing = run[2], run[3], run[4]
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
    -- Whether a rate may be reached on the way through the run: no step of it has more of fewer calls than this.
    if grown >= minimum and (failure_rate and 100 * (failed + failing) >= failure_rate * calls
      or slow_rate and 100 * (slow + slowing) >= slow_rate * calls) then return nil end
    if not size then
      left, bucket_failures, bucket_slow = left + count, bucket_failures + failing, bucket_slow + slowing
      calls = grown
    elseif grown <= size then
      added, at, calls = added and added .. run[5] or run[5], (at + count) % size, grown
    elseif calls < size then
      return nil
    elseif failed > 0 or slow > 0 or failing > 0 or slowing > 0 then  -- else all are alike, and the window stays as it is
      if count > left then return nil end
      local letters = sub(source, offset + 1, offset + count)
      local gone = known_letters[letters] or worth(letters)
      failed, slow = failed - gone[1], slow - gone[2]
      offset, left, at = offset + count, left - count, (at + count) % size
      added = added and added .. run[5] or run[5]
    end
    failed, slow = failed + failing, slow + slowing
  end
  local changed
  if not size then
    changed = put_together(TIME_FORMAT, streak, streak_id, calls, failed, slow, at, successes, failures, slow_calls, left,
      bucket_failures, bucket_slow)
  else
    local letters = sub(counts, left > 0 and source == counts and LETTERS_SIZE + 1 or from)
    if left > 0 and source ~= counts then letters = source .. letters end
    changed = put_together(LETTERS_FORMAT, streak, streak_id, calls, failed, slow, at, successes, failures, slow_calls, left,
      letters, added or '')
  end
  call('HSET', key, 'counts', changed, field, put_together(REPORTER_FORMAT, number, now, bad_at, bad_streak, slow_at))
  return known.reply
end

-- The refusal of a breaker that is open by itself, or nil: nothing was done.
local function refuse_quickly(key)
  if not call then look_up() end
  local standing_part = call('HGET', key, 'standing')
  local known = standing_part and (known_standings[standing_part] or known_standing(standing_part))
  if not known or known.word ~= REFUSING then return nil end
  local now = clock_ms()
  local left = known.open_until - now
  if known.since > now or left <= 0 or left > known.open_length then return nil end
  if failed(redis.pcall('HINCRBY', key, 'notPermitted', '1')) then return nil end
  known.reply[5] = left
  return known.reply
end
