-- A breaker as it is stored, and as a table: read from its hash, changed in memory, saved in one block.
--   dirty    packed parts to write  changed  cold fields to write
--   added    counters to raise      ops      commands on its other keys, in order
--   moves    entries for history    notes    messages for the shared names
-- The hash holds:
--   standing     numbers that change with transitions and policies, packed in the order of STANDING after the word (below)
--                and before the policy's id, by which a policy that was read before is known again
--   counts       numbers that change with outcomes, packed in the order of COUNTS; then for a time window those of BUCKET,
--                for a count window how many letters `head` has, and the letters at its edges (window.lua)
--   policy       the policy's text
--   c:<client>   a reporter: last batch, last seen, last failure and its streak, last slow call; packed
--   the rest     COLD, a field a value, read by `warm` where a transition, a lease, an override or a shadow needs it;
--                counters raised in place: t:<from>:<to>:<reason>, ms:<state>, probes<what became of them>
-- Packed, because reading and writing fields is most of what a call costs.

local STANDING = {'incarnation', 'generation', 'revision', 'since', 'openUntil', 'openLength', 'project'}
local STANDING_FORMAT, STANDING_SIZE = '<ddddddddd', 72
local COUNTS = {
  'streak', 'streakId', 'windowCalls', 'windowFailures', 'windowSlow', 'windowAt', 'successes', 'failures', 'slow',
}
local BUCKET = {'bucketCalls', 'bucketFailures', 'bucketSlow'}
local TIME_FORMAT, TIME_SIZE = '<dddddddddddd', 96
local LETTERS_FORMAT, LETTERS_SIZE = '<ddddddddddc0c0', 80  -- the letters in two pieces: fewer texts are made that way
local REPORTER_FORMAT, REPORTER_SIZE = '<ddddd', 40
local COLD_TEXTS = {'owner', 'uid', 'reason', 'lastReset', 'overrideEnded', 'shadowState', 'shadowReason'}
local COLD_NUMBERS = {
  'ignored', 'notPermitted', 'late',
  'resourceGeneration', 'projectFailed', 'countedAt', 'attempt', 'probeSuccesses', 'probesLost', 'probeLength',
  'forcedUntil', 'forcedLength', 'shadowSince', 'shadowOpenUntil', 'shadowOpenLength', 'shadowAttempt',
  'shadowProbeSuccesses', 'shadowOpened', 'shadowNotPermitted', 'reportersKept', 'reportersSweptAt',
}

-- What stands in a hash may be of anybody who may write there; a reply is read by the operator of all.
local function cut(value)
  return type(value) == 'string' and string.sub(value, 1, LONGEST_TEXT) or value
end

-- Plain loops: while a library loads, Redis knows no `ipairs`.
local function joined_names(one, other)
  local names = {}
  for i = 1, #one do names[#names + 1] = one[i] end
  for i = 1, #other do names[#names + 1] = other[i] end
  return names
end
local COLD = joined_names(COLD_TEXTS, COLD_NUMBERS)
local PACKED_NUMBERS = joined_names(joined_names(STANDING, COUNTS), BUCKET)
local PART = {state = 'standing', forced = 'standing', head = 'counts', tail = 'counts'}
for i = 1, #STANDING do PART[STANDING[i]] = 'standing' end
for i = 1, #COUNTS do PART[COUNTS[i]] = 'counts' end
for i = 1, #BUCKET do PART[BUCKET[i]] = 'counts' end

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
  return {key = key, rules = rules, policy = text, dirty = {}, changed = {}, added = {}, ops = {}, moves = {},
    notes = {},     head = '', tail = '', live = 0}
end

local function packed_standing(b)
  local word = STATE_WORDS[b.state] + FORCED_WORDS[b.forced] + (b.rules.mode == 'Observe' and OBSERVING or 0)
  return struct.pack(STANDING_FORMAT, word, b.incarnation, b.generation, b.revision, b.since, b.openUntil, b.openLength,
    b.project, b.rules.id)
end

local function packed_counts(b)
  if not b.rules.windowCalls then
    return struct.pack(TIME_FORMAT, b.streak, b.streakId, b.windowCalls, b.windowFailures, b.windowSlow, b.windowAt,
      b.successes, b.failures, b.slow, b.bucketCalls, b.bucketFailures, b.bucketSlow)
  end
  -- What of `head` has left the window stands before the rest of it as blanks: the quick way moves a number only.
  local head = b.head
  if head ~= '' then head = string.rep(' ', math.min(EDGE, b.rules.windowCalls) - #head) .. head end
  return struct.pack(LETTERS_FORMAT, b.streak, b.streakId, b.windowCalls, b.windowFailures, b.windowSlow, b.windowAt,
    b.successes, b.failures, b.slow, #b.head, head, b.tail)
end

-- The breaker at key; nil when there is none or when what is there is damaged (then cb_configure makes it anew).
local function unpacked(key, standing_part, counts, text)
  local rules = policy_of(text)
  if not rules or #standing_part ~= STANDING_SIZE or #counts < (rules.windowCalls and LETTERS_SIZE or TIME_SIZE) then
    return nil
  end
  local b, word, left = blank(key, rules, text), nil, nil
  word, b.incarnation, b.generation, b.revision, b.since, b.openUntil, b.openLength, b.project =
    struct.unpack(STANDING_FORMAT, standing_part)
  b.streak, b.streakId, b.windowCalls, b.windowFailures, b.windowSlow, b.windowAt, b.successes, b.failures, b.slow, left,
    b.bucketFailures, b.bucketSlow = struct.unpack(rules.windowCalls and '<dddddddddd' or TIME_FORMAT, counts)
  b.state, b.forced = STATES[word % 4], FORCED[math.floor(word / 4) % 4]
  if not b.state or not b.forced or not (b.incarnation >= 1 and b.generation >= 1) then return nil end
  if rules.windowCalls then
    local from = LETTERS_SIZE + (left > 0 and math.min(EDGE, rules.windowCalls) or 0)
    b.head, b.tail = string.sub(counts, from - left + 1, from), string.sub(counts, from + 1)
    b.bucketCalls, b.bucketFailures, b.bucketSlow = 0, 0, 0
  else
    b.bucketCalls = left
  end
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
  local part = PART[name]
  if part then b.dirty[part] = true else b.changed[name] = value end
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

local client_fields = {}  -- by client

local function client_field(client)
  local field = client_fields[client]
  if not field then
    if is_full('clients', 10000) then client_fields = {} end
    field = 'c:' .. client
    client_fields[client] = field
  end
  return field
end

local function reporter_of(b, client)
  return unpacked_reporter(client, redis.call('HGET', b.key, client_field(client)))
end
