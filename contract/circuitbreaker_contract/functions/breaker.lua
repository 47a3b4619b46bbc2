-- A breaker as a table: read from its hash, changed in memory, saved in one block.
--   changed  fields to write        added  counters to raise       ops    commands on its other keys, in order
--   moves    entries for history    notes  messages for the shared names

local TEXT_FIELDS = {'owner', 'uid', 'policy', 'state', 'reason', 'lastReset'}
local NUMBER_FIELDS = {
  'resourceGeneration', 'project', 'projectFailed', 'incarnation', 'generation', 'revision', 'since', 'countedAt',
  'openUntil', 'openLength', 'attempt', 'streak', 'probeSuccesses', 'probesLost', 'probeLength',
  'successes', 'failures', 'slow', 'ignored', 'notPermitted', 'late',
}
local FIELDS = {}  -- plain loops: while a library loads, Redis knows no `ipairs`
for i = 1, #TEXT_FIELDS do FIELDS[#FIELDS + 1] = TEXT_FIELDS[i] end
for i = 1, #NUMBER_FIELDS do FIELDS[#FIELDS + 1] = NUMBER_FIELDS[i] end
local FIRST_NUMBER = #TEXT_FIELDS + 1

local function probes_key(b) return b.key .. ':probes' end

local function reporters_key(b) return b.key .. ':reporters' end

local function history_key(b) return b.key .. ':history' end

local function blank(key)
  return {key = key, changed = {}, added = {}, ops = {}, moves = {}, notes = {}}
end

-- The breaker at key; nil when there is none or when what is there is damaged (then cb_configure makes it anew).
local function read(key)
  local values = redis.call('HMGET', key, unpack(FIELDS))
  local b = blank(key)
  for i, name in ipairs(FIELDS) do
    if i < FIRST_NUMBER then b[name] = values[i] or '' else b[name] = tonumber(values[i] or 0) or 0 end
  end
  b.rules = policy_of(b.policy)
  if not b.rules or b.incarnation < 1 or b.generation < 1 then return nil end
  if b.state ~= CLOSED and b.state ~= OPEN and b.state ~= HALF_OPEN then return nil end
  return b
end

local function set(b, name, value)
  if b[name] ~= value then
    b[name] = value
    b.changed[name] = value
  end
end

local function raise(b, name, count) set(b, name, b[name] + count) end

-- Counters that no rule reads are raised in place, without being read first.
local function add(b, name, count)
  if count > 0 then b.added[name] = (b.added[name] or 0) + count end
end

local function op(b, ...) b.ops[#b.ops + 1] = {...} end

-- Keeps the newest `MAX_ENDED_LEASES` of one class of ended leases; within a class the newest has the lowest score.
local function trim_leases(key, low, high)
  local count = redis.call('ZCOUNT', key, low, high)
  if count > MAX_ENDED_LEASES then
    local first = redis.call('ZCOUNT', key, '-inf', '(' .. low)
    if low == '-inf' then first = 0 end
    redis.call('ZREMRANGEBYRANK', key, first + MAX_ENDED_LEASES, first + count - 1)
  end
end

-- Writes everything that changed, then tells the shared names (project.lua is joined after this file's callers).
local function save(b)
  local pairs_to_set = {}
  for name, value in pairs(b.changed) do
    pairs_to_set[#pairs_to_set + 1] = name
    pairs_to_set[#pairs_to_set + 1] = value
  end
  if #pairs_to_set > 0 then redis.call('HSET', b.key, unpack(pairs_to_set)) end
  for name, count in pairs(b.added) do redis.call('HINCRBY', b.key, name, count) end
  for _, command in ipairs(b.ops) do redis.call(unpack(command)) end
  if b.leases_changed then
    trim_leases(probes_key(b), '-inf', '-100000000000000')
    trim_leases(probes_key(b), '-10000000000000', '(0')
    redis.call('PEXPIRE', probes_key(b), b.rules.probeTimeoutMs + KEPT_MS)
  end
  for _, move in ipairs(b.moves) do
    redis.call('XADD', history_key(b), 'MAXLEN', '=', MAX_HISTORY, '*', unpack(move))
  end
end
