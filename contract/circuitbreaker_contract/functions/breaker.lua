-- A breaker as a table: read from its hash, changed in memory, saved in one block.
--   changed  fields to write        added  counters to raise       ops    commands on its other keys, in order
--   moves    entries for history    notes  messages for the shared names
-- Counting in Closed needs the hot fields only; `warm` reads the rest, once, where a transition, a lease, an override or a
-- shadow needs it. That halves the cost of the call that everybody makes.

local HOT_TEXTS = {'policy', 'state', 'forced'}
local HOT_NUMBERS = {
  'incarnation', 'generation', 'revision', 'since', 'openUntil', 'openLength', 'project', 'streak', 'streakId',
  'windowCalls', 'windowFailures', 'windowSlow', 'windowAt', 'bucketCalls', 'bucketFailures', 'bucketSlow',
  'successes', 'failures', 'slow', 'ignored', 'notPermitted', 'late',
}
local COLD_TEXTS = {'owner', 'uid', 'reason', 'lastReset', 'overrideEnded', 'shadowState', 'shadowReason'}
local COLD_NUMBERS = {
  'resourceGeneration', 'projectFailed', 'countedAt', 'attempt', 'probeSuccesses', 'probesLost', 'probeLength',
  'forcedUntil', 'forcedLength', 'shadowSince', 'shadowOpenUntil', 'shadowOpenLength', 'shadowAttempt',
  'shadowProbeSuccesses', 'shadowOpened', 'shadowNotPermitted',
}

-- Plain loops: while a library loads, Redis knows no `ipairs`.
local function joined_names(texts, numbers)
  local names = {}
  for i = 1, #texts do names[#names + 1] = texts[i] end
  for i = 1, #numbers do names[#names + 1] = numbers[i] end
  return names
end
local HOT, COLD = joined_names(HOT_TEXTS, HOT_NUMBERS), joined_names(COLD_TEXTS, COLD_NUMBERS)

local function probes_key(b) return b.key .. ':probes' end

local function reporters_key(b) return b.key .. ':reporters' end

local function history_key(b) return b.key .. ':history' end

local function window_key(b) return b.key .. ':window' end

local function blank(key)
  return {key = key, changed = {}, added = {}, ops = {}, moves = {}, notes = {}}
end

local function take(b, names, texts, values)
  for i = 1, #names do
    if i <= texts then b[names[i]] = values[i] or '' else b[names[i]] = values[i] and tonumber(values[i]) or 0 end
  end
end

-- The breaker at key; nil when there is none or when what is there is damaged (then cb_configure makes it anew).
local function read(key)
  local b = blank(key)
  take(b, HOT, #HOT_TEXTS, redis.call('HMGET', key, unpack(HOT)))
  b.rules = policy_of(b.policy)
  if not b.rules or b.incarnation < 1 or b.generation < 1 then return nil end
  if b.state ~= CLOSED and b.state ~= OPEN and b.state ~= HALF_OPEN then return nil end
  return b
end

local function warm(b)
  if not b.warmed then
    take(b, COLD, #COLD_TEXTS, redis.call('HMGET', b.key, unpack(COLD)))
    if b.shadowState == '' then b.shadowState = CLOSED end
    b.warmed = true
  end
  return b
end

local function set(b, name, value)
  if b[name] ~= value then
    b[name] = value
    b.changed[name] = value
  end
end

local function raise(b, name, count)
  if count ~= 0 then set(b, name, b[name] + count) end
end

-- Counters that no rule reads are raised in place, without being read first.
local function add(b, name, count)
  if count > 0 then b.added[name] = (b.added[name] or 0) + count end
end

local function op(b, ...) b.ops[#b.ops + 1] = {...} end

-- Keeps the newest `MAX_ENDED_LEASES` of one class of ended leases; within a class the newest has the lowest score.
local function trim_leases(key, low, high)
  local count = redis.call('ZCOUNT', key, low, high)
  if count > MAX_ENDED_LEASES then
    local first = low == '-inf' and 0 or redis.call('ZCOUNT', key, '-inf', '(' .. low)
    redis.call('ZREMRANGEBYRANK', key, first + MAX_ENDED_LEASES, first + count - 1)
  end
end
