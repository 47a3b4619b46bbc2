-- A breaker as it is stored, and as a table: read from its hash, changed in memory, saved in one block.
--   changed  cold fields to write   added  counters to raise       ops    commands on its other keys, in order
--   moves    entries for history    notes  messages for the shared names
-- The hash holds:
--   hot          what every call needs, packed: numbers in the order of `packed`, then the letters at the edges of a count
--                window (window.lua). One field, because reading and writing fields is most of what a call costs.
--   policy       the policy's text, with `policyId` in hot, by which one that was read before is known again
--   c:<client>   a reporter: last batch, last seen, last failure and its streak, last slow call; packed
--   the rest     COLD, a field a value, read by `warm` where a transition, a lease, an override or a shadow needs it;
--                counters raised in place: t:<from>:<to>:<reason>, ms:<state>, probes<what became of them>

local HOT_FORMAT, HOT_SIZE = '<dddddddddddddddddddddd', 176
-- What counting needs stands first (QUICK_FORMAT), and what it changes (QUICK_REST) from byte QUICK_FROM + 1 to QUICK_TO.
local QUICK_FORMAT, QUICK_REST, QUICK_FROM, QUICK_TO = '<ddddddddddddddddddd', '<ddddddddddddd', 48, 152
local REPORTER_FORMAT, REPORTER_SIZE = '<ddddd', 40
local HOT_NUMBERS = {
  'incarnation', 'generation', 'revision', 'since', 'openUntil', 'openLength', 'project', 'streak', 'streakId',
  'windowCalls', 'windowFailures', 'windowSlow', 'windowAt', 'bucketCalls', 'bucketFailures', 'bucketSlow',
  'successes', 'failures', 'slow',
}
local COLD_TEXTS = {'owner', 'uid', 'reason', 'lastReset', 'overrideEnded', 'shadowState', 'shadowReason'}
local COLD_NUMBERS = {
  'ignored', 'notPermitted', 'late',
  'resourceGeneration', 'projectFailed', 'countedAt', 'attempt', 'probeSuccesses', 'probesLost', 'probeLength',
  'forcedUntil', 'forcedLength', 'shadowSince', 'shadowOpenUntil', 'shadowOpenLength', 'shadowAttempt',
  'shadowProbeSuccesses', 'shadowOpened', 'shadowNotPermitted', 'reportersKept', 'reportersSweptAt',
}

-- Plain loops: while a library loads, Redis knows no `ipairs`.
local function joined_names(texts, numbers)
  local names = {}
  for i = 1, #texts do names[#names + 1] = texts[i] end
  for i = 1, #numbers do names[#names + 1] = numbers[i] end
  return names
end
local COLD = joined_names(COLD_TEXTS, COLD_NUMBERS)
local IS_COLD = {}
for i = 1, #COLD do IS_COLD[COLD[i]] = true end

-- Word of a breaker in one number: its state, what it is forced to, and whether it observes. COUNTING is the word of one
-- that just counts: Closed, by itself, enforcing. REFUSING: Open, by itself.
local STATE_WORDS = {[CLOSED] = 1, [OPEN] = 2, [HALF_OPEN] = 3}
local STATES = {CLOSED, OPEN, HALF_OPEN}
local FORCED_WORDS = {[''] = 0, [CLOSED] = 4, [OPEN] = 8}
local FORCED = {[0] = '', CLOSED, OPEN}
local OBSERVING = 16
local COUNTING, REFUSING = 1, 2

local function probes_key(b) return b.key .. ':probes' end

local function history_key(b) return b.key .. ':history' end

local function window_key(b) return b.key .. ':window' end

local function blank(key, rules, text)
  return {key = key, rules = rules, policy = text, changed = {}, added = {}, ops = {}, moves = {}, notes = {},
    head = '', tail = '', live = 0}
end

local function packed(b)
  local word = STATE_WORDS[b.state] + FORCED_WORDS[b.forced] + (b.rules.mode == 'Observe' and OBSERVING or 0)
  return struct.pack(HOT_FORMAT, word, b.incarnation, b.generation, b.revision, b.rules.id, b.since, b.streak, b.streakId,
    b.windowCalls, b.windowFailures, b.windowSlow, b.windowAt, b.bucketCalls, b.bucketFailures, b.bucketSlow, b.successes,
    b.failures, b.slow, #b.head, b.openUntil, b.openLength, b.project) .. b.head .. b.tail
end

-- The breaker at key; nil when there is none or when what is there is damaged (then cb_configure makes it anew).
local function unpacked(key, hot, text)
  local rules = policy_of(text)
  if not rules or #hot < HOT_SIZE then return nil end
  local b, word, policy_id, edge = blank(key, rules, text), nil, nil, nil
  word, b.incarnation, b.generation, b.revision, policy_id, b.since, b.streak, b.streakId, b.windowCalls, b.windowFailures,
    b.windowSlow, b.windowAt, b.bucketCalls, b.bucketFailures, b.bucketSlow, b.successes, b.failures, b.slow, edge,
    b.openUntil, b.openLength, b.project = struct.unpack(HOT_FORMAT, hot)
  b.state, b.forced = STATES[word % 4], FORCED[math.floor(word / 4) % 4]
  if not b.state or not b.forced or not (b.incarnation >= 1 and b.generation >= 1) then return nil end
  b.head, b.tail = string.sub(hot, HOT_SIZE + 1, HOT_SIZE + edge), string.sub(hot, HOT_SIZE + edge + 1)
  return b
end

local function warm(b)
  if b.warmed then return b end
  local values = redis.call('HMGET', b.key, unpack(COLD))
  for i = 1, #COLD do
    local name, value = COLD[i], values[i]
    if i <= #COLD_TEXTS then b[name] = value or '' else b[name] = value and tonumber(value) or 0 end
  end
  if b.shadowState == '' then b.shadowState = CLOSED end
  b.warmed = true
  return b
end

local function set(b, name, value)
  if b[name] == value then return end
  b[name] = value
  if IS_COLD[name] then b.changed[name] = value else b.dirty = true end
end

local function raise(b, name, count)
  if count ~= 0 then set(b, name, b[name] + count) end
end

-- Counters that no rule reads are raised in place, without being read first.
local function add(b, name, count)
  if count > 0 then b.added[name] = (b.added[name] or 0) + count end
end

local function op(b, ...) b.ops[#b.ops + 1] = {...} end

-- What is known of a client: the last batch seen of it, when it was last here, when it last saw a bad outcome and in which
-- streak, and when it last saw a slow one.
local function unpacked_reporter(client, entry)
  local r = {client = client, seq = 0, seen = 0, bad = 0, streakId = 0, slow = 0}
  if entry and #entry == REPORTER_SIZE then
    r.known = true
    r.seq, r.seen, r.bad, r.streakId, r.slow = struct.unpack(REPORTER_FORMAT, entry)
  end
  return r
end

local function packed_reporter(r) return struct.pack(REPORTER_FORMAT, r.seq, r.seen, r.bad, r.streakId, r.slow) end

-- All reporters, looked up once a call and only where somebody has to be compared with the others.
local function reporters_of(b)
  if b.reporters then return b.reporters end
  local found, all = {}, b.older and b.older.reporters or b.all or redis.call('HGETALL', b.key)
  for i = 1, #all, 2 do
    local client = string.match(all[i], '^c:(.+)$')
    if client then found[#found + 1] = unpacked_reporter(client, all[i + 1]) end
  end
  b.reporters = found
  return found
end

local client_fields, client_count = {}, 0  -- by client; pure, so remembering is safe

local function client_field(client)
  local field = client_fields[client]
  if not field then
    if client_count >= 10000 then client_fields, client_count = {}, 0 end
    field = 'c:' .. client
    client_fields[client], client_count = field, client_count + 1
  end
  return field
end

local function reporter_of(b, client)
  return unpacked_reporter(client, redis.call('HGET', b.key, client_field(client)))
end
