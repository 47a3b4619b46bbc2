-- The sliding window of the two rates. Its sums are fields of the hash: windowCalls, windowFailures, windowSlow.
--   Count window: the last N outcomes as letters in a string at `:window`, a ring; windowAt is where the next one goes.
--   Its edges stand in the hash, so that a call seldom needs the ring: `tail` the newest letters, which the ring has not
--   got yet, and `head` the oldest ones, a copy, which leave next. When both are all there is, the ring may be stale.
--   Time window: 20 buckets of windowMs / 20, aligned to the epoch; windowAt is the current one's number, its counts are
--   bucketCalls, bucketFailures, bucketSlow, and the earlier ones stand in a hash at `:window`.
-- Opened with the first outcome that counts (b.window), written by save_window.

local function bucket_at(b, now) return math.floor(now * BUCKETS / b.rules.windowMs) end

local function set_sums(b, calls, failures, slow)
  set(b, 'windowCalls', calls)
  set(b, 'windowFailures', failures)
  set(b, 'windowSlow', slow)
end

-- Runs of equal letters, oldest first.
local function runs_of(letters)
  local runs, from = {}, 1
  while from <= #letters do
    local letter = string.sub(letters, from, from)
    local next_other = string.find(letters, '[^' .. letter .. ']', from) or #letters + 1
    runs[#runs + 1] = {letter, next_other - from}
    from = next_other
  end
  return runs
end

-- Writes letters into the ring, the first of them at `from`.
local function write_ring(key, size, from, letters)
  if letters == '' then return end
  local first = math.min(#letters, size - from)
  redis.call('SETRANGE', key, from, string.sub(letters, 1, first))
  if first < #letters then redis.call('SETRANGE', key, 0, string.sub(letters, first + 1)) end
end

-- `count` letters of the ring from `from` on.
local function read_ring(key, size, from, count)
  local letters = redis.call('GETRANGE', key, from, math.min(size, from + count) - 1)
  if #letters >= count then return letters end
  return letters .. redis.call('GETRANGE', key, 0, count - #letters - 1)
end

-- Whether that many letters were there: a ring that was evicted, or not moved with the hash, has none or zeros.
local function are_letters(letters, count) return #letters == count and not string.find(letters, '[^SFLM]') end

-- Brings the edges into the ring.
local function spill(b, size)
  write_ring(window_key(b), size, (b.windowAt - b.windowCalls) % size, b.head)
  write_ring(window_key(b), size, (b.windowAt - #b.tail) % size, b.tail)
  set(b, 'head', '')
  set(b, 'tail', '')
end

-- `count` letters of the ring, beginning with the oldest.
local function oldest_letters(b, size, filled, count)
  if count < 1 then return '' end
  return read_ring(window_key(b), size, (b.windowAt - filled) % size, count)
end

local function bucket_counts(raw)
  local calls, failures, slow = string.match(raw or '', '^(%d+):(%d+):(%d+)$')
  return tonumber(calls or 0), tonumber(failures or 0), tonumber(slow or 0)
end

-- Sums over the buckets that are still in the window at `now`, the current one apart.
local function sum_buckets(b, now)
  local current, calls, failures, slow = bucket_at(b, now), 0, 0, 0
  local mine = {0, 0, 0}
  local stale = {}
  local function count(number, c, f, s)
    if number == current then
      mine = {mine[1] + c, mine[2] + f, mine[3] + s}
    elseif number > current - BUCKETS and number < current then
      calls, failures, slow = calls + c, failures + f, slow + s
    end
  end
  local all = b.window_cleared and {} or redis.call('HGETALL', window_key(b))
  for i = 1, #all, 2 do
    local number = tonumber(all[i]) or -1
    if number <= current - BUCKETS or number >= current then stale[#stale + 1] = all[i] end
    count(number, bucket_counts(all[i + 1]))
  end
  if b.bucketCalls > 0 then count(b.windowAt, b.bucketCalls, b.bucketFailures, b.bucketSlow) end
  return calls + mine[1], failures + mine[2], slow + mine[3], mine, stale
end

local function roll_buckets(b, now)
  local current = bucket_at(b, now)
  if b.windowAt == current then return end
  local calls, failures, slow, mine, stale = sum_buckets(b, now)
  if #stale > 0 then op(b, 'HDEL', window_key(b), unpack(stale)) end
  if b.bucketCalls > 0 and b.windowAt < current and b.windowAt > current - BUCKETS then
    op(b, 'HSET', window_key(b), string.format('%d', b.windowAt),
      string.format('%d:%d:%d', b.bucketCalls, b.bucketFailures, b.bucketSlow))
    op(b, 'PEXPIRE', window_key(b), b.rules.windowMs + KEPT_MS)
  end
  set_sums(b, calls, failures, slow)
  set(b, 'windowAt', current)
  set(b, 'bucketCalls', mine[1])
  set(b, 'bucketFailures', mine[2])
  set(b, 'bucketSlow', mine[3])
end

-- At most so many outcomes of this call's batch can go through the window.
local function incoming(b)
  local total, most = 0, b.rules.windowCalls
  for _, run in ipairs(b.runs) do
    if run[1] ~= 'N' and run[1] ~= 'I' then total = total + math.min(run[2], most) end
  end
  return total
end

local function clear_window(b)
  if b.windowCalls > 0 or b.bucketCalls > 0 or b.windowAt > 0 then op(b, 'DEL', window_key(b)) end
  set_sums(b, 0, 0, 0)
  set(b, 'head', '')
  set(b, 'tail', '')
  set(b, 'windowAt', 0)
  set(b, 'bucketCalls', 0)
  set(b, 'bucketFailures', 0)
  set(b, 'bucketSlow', 0)
  b.window_cleared = true  -- its key goes with the save; until then what it holds does not count
  if b.window then b.window = {size = b.window.size, queue = {}, head = 1, whole = true, log = {}, total = 0} end
end

local function open_window(b, now)
  if b.window then return end
  local size = b.rules.windowCalls
  if not size then
    roll_buckets(b, now)
    b.window = {}
    return
  end
  spill(b, size)
  local filled = b.windowCalls
  local leaving = math.min(filled, math.max(0, filled + incoming(b) - size))
  local letters = oldest_letters(b, size, filled, leaving)
  if not are_letters(letters, leaving) then
    clear_window(b)
    filled, leaving, letters = 0, 0, ''
  end
  b.window = {size = size, queue = runs_of(letters), head = 1, whole = leaving == filled, log = {}, total = 0}
end

-- How the next outcomes of a run of `letter` change the sums, all alike: how many they are, and the letter that each
-- pushes out (nil: none).
local function next_stretch(b, letter, count)
  local w = b.window
  if not w.size then return count, nil end
  if b.windowCalls < w.size then return math.min(count, w.size - b.windowCalls), nil end
  local run = w.queue[w.head]
  if w.whole and w.head == #w.queue and run[1] == letter then return count, letter end  -- all alike: nothing changes
  return math.min(count, run[2]), run[1]
end

-- Takes `count` outcomes of `letter` in, each pushing `leaving` out.
local function slide(b, now, letter, count, leaving)
  local w = b.window
  local failures = (is_bad(letter) and 1 or 0) - (leaving and is_bad(leaving) and 1 or 0)
  local slow = (is_slow(letter) and 1 or 0) - (leaving and is_slow(leaving) and 1 or 0)
  set_sums(b, b.windowCalls + (leaving and 0 or count), b.windowFailures + failures * count, b.windowSlow + slow * count)
  if not w.size then
    if b.windowAt == 0 then set(b, 'windowAt', bucket_at(b, now)) end
    raise(b, 'bucketCalls', count)
    if is_bad(letter) then raise(b, 'bucketFailures', count) end
    if is_slow(letter) then raise(b, 'bucketSlow', count) end
    return
  end
  if leaving and not (w.whole and w.head == #w.queue and leaving == letter) then
    local run = w.queue[w.head]
    run[2] = run[2] - count
    if run[2] == 0 then w.head = w.head + 1 end
  end
  if w.whole then
    local last = w.queue[#w.queue]
    if w.head <= #w.queue and last[1] == letter then
      last[2] = math.min(w.size, last[2] + count)
    else
      w.queue[#w.queue + 1] = {letter, math.min(w.size, count)}
    end
  end
  w.log[#w.log + 1] = {letter, count}
  w.total = w.total + count
end

-- Writes the letters that came in, at most the whole ring once.
local function save_window(b)
  local w = b.window
  if not w or not w.size or w.total == 0 then return end
  local pieces, left = {}, math.min(w.total, w.size)
  for i = #w.log, 1, -1 do
    local count = math.min(left, w.log[i][2])
    table.insert(pieces, 1, string.rep(w.log[i][1], count))
    left = left - count
    if left == 0 then break end
  end
  local letters = table.concat(pieces)
  write_ring(window_key(b), w.size, (b.windowAt + w.total - #letters) % w.size, letters)
  set(b, 'windowAt', (b.windowAt + w.total) % w.size)
  if b.windowCalls == w.size then
    set(b, 'head', read_ring(window_key(b), w.size, b.windowAt, math.min(EDGE, w.size)))
  end
end

-- The window after an edit: a count window keeps its newest outcomes, any other change starts empty.
local function reshape_window(b, old, new)
  if old.windowCalls == new.windowCalls and old.windowMs == new.windowMs then return end
  b.dirty.counts = true  -- they are packed by the kind of window
  if not old.windowCalls or not new.windowCalls then
    clear_window(b)
    return
  end
  spill(b, old.windowCalls)
  local filled = b.windowCalls
  local letters = oldest_letters(b, old.windowCalls, filled, filled)
  letters = string.sub(letters, -math.min(filled, new.windowCalls))
  if filled == 0 or not are_letters(letters, math.min(filled, new.windowCalls)) then letters = '' end
  if letters == '' then op(b, 'DEL', window_key(b)) else op(b, 'SET', window_key(b), letters) end
  local _, failures = string.gsub(letters, '[FM]', '')
  local _, slow = string.gsub(letters, '[LM]', '')
  set_sums(b, #letters, failures, slow)
  set(b, 'windowAt', #letters % new.windowCalls)
end

-- The sums as they are at `now`, aged buckets left out, for one who may not write.
local function window_sums(b, now)
  if b.rules.windowCalls or b.windowAt == bucket_at(b, now) then return b.windowCalls, b.windowFailures, b.windowSlow end
  local calls, failures, slow = sum_buckets(b, now)
  return calls, failures, slow
end
