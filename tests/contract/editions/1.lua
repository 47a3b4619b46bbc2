#!lua name=circuitbreaker
local CONTRACT_VERSION, LIBRARY_VERSION, DIGEST = 1, 1, '12fd76fb227b2e0b'
-- The library `circuitbreaker`: circuit breakers whose state is shared through Redis. This file opens the joined text.
--
-- Laws (the same stand at the top of rules.py, the pure twin):
--   1. A breaker is ordered by (incarnation, generation, revision). The incarnation is Redis' time in ms when its hash
--      was made, larger than any it resumes from. The generation rises by one with each transition or reset, and never
--      otherwise. The revision rises with each change of policy.
--   2. A permit and a batch carry (incarnation, generation); an outcome of another pair changes nothing but `late`.
--   3. Closed opens when a trip rule holds. Open becomes HalfOpen when Redis' time >= openUntil, by whoever asks first.
--      HalfOpen has at most halfOpenLimit live leases.
--   4. HalfOpen closes on the successThreshold-th success of its generation, and opens on its first failure.
--      halfOpenLimit expired leases in one generation without a success open it again.
--   5. An ignored outcome is neither success nor failure and frees its lease. An expired lease frees its slot and never
--      counts as success; its answer in the same generation still counts, once.
--   6. Closing resets attempt and streak.
--   7. Nothing but the functions writes these keys; each validates everything before its first write and writes the
--      breaker's keys in one block (functions do not roll back).
--   8. One reading of the clock a call. A stored instant is never believed farther ahead than its own length, so that a
--      fail-over to a skewed clock cannot freeze a breaker.
--
-- Shape of every function: check the arguments, read, do what is due, do its own work, save, reply.

local CLOSED, OPEN, HALF_OPEN = 'Closed', 'Open', 'HalfOpen'
local ENV = 'env'                     -- owner and uid of a breaker that a client defined from its environment
local MAX_RUN, MAX_RUNS = 1000000, 256
local MAX_HISTORY = 256
local MAX_ENDED_LEASES = 1000         -- how many settled, and how many expired, leases are remembered
local MAX_REPORTERS = 1000
local REPORTER_SEEN_MS = 60000        -- a client that reported within it is counted in `reporters`
local REPORTER_KEPT_MS = 600000       -- a client unseen for longer may be forgotten
local FULL_RETRY_MS = 250             -- slots full: nobody waits longer than this before asking again
local KEPT_MS = 3600000               -- probes and reporters of a breaker that nobody uses go after this

-- clock_ms: the one reading of time in a call. TIME moves while a function runs, so it is read once and handed down.
-- Tests join another file in place of this one.
local function clock_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Arguments arrive as texts from anybody; these say what is wrong with one, before anything is written.

local function refuse(text) return redis.error_reply('CBARG ' .. text) end

local function unknown(key) return redis.error_reply('CBUNKNOWN no breaker at ' .. key) end

-- Ids are chosen by callers and become fields and members: 1 to 64 of a safe alphabet.
local function is_id(text) return #text <= 64 and string.find(text, '^[%w_.:-]+$') ~= nil end

-- A whole number from 0 to 2^53 - 1, else nil.
local function whole(text)
  if #text > 16 or not string.find(text, '^%d+$') then return nil end
  local number = tonumber(text)
  return number < 9007199254740992 and number or nil
end

local function is_name(text)
  return #text <= 63 and string.find(text, '^[%l%d]') and string.find(text, '[%l%d]$')
    and string.find(text, '^[%l%d.-]+$') ~= nil
end

-- prefix and `namespace/name` of a breaker's key, or nil when the key has another form.
local function parts(key)
  local prefix, namespace, name = string.match(key, '^([^{}]*){([^{}/]+)/([^{}/]+)}$')
  if not prefix or not is_name(namespace) or not is_name(name) then return nil end
  return prefix, namespace .. '/' .. name
end

-- What every function checks first: its one key and how many arguments it takes.
local function wrong_call(keys, args, least, most)
  if #keys ~= 1 then return refuse('one key is needed, the breaker\'s') end
  if not parts(keys[1]) then
    return refuse('key: must be <prefix>{<namespace>/<name>}, names as Kubernetes has them, at most 63 characters')
  end
  if #args < least or #args > (most or least) then
    return refuse('arguments: ' .. least .. (most and ' to ' .. most or '') .. ' are needed, not ' .. #args)
  end
end

-- The runs of a batch as {letter, count} in order, or nil and what is wrong.
local function parse_batch(text)
  local runs, length = {}, 0
  for letter, digits in string.gmatch(text, '([SFLMIN])([1-9]%d*)') do
    local count = #digits <= 7 and tonumber(digits) or MAX_RUN + 1
    if count > MAX_RUN then return nil, 'a run has at most ' .. MAX_RUN .. ' calls' end
    if #runs == MAX_RUNS then return nil, 'a batch has at most ' .. MAX_RUNS .. ' runs' end
    runs[#runs + 1] = {letter, count}
    length = length + 1 + #digits
  end
  -- What the pattern skipped must be the single spaces between runs and nothing else.
  if #runs == 0 or length + #runs - 1 ~= #text or string.find(text, '^ ') or string.find(text, '  ', 1, true) then
    return nil, 'must be runs like "S120 F1", letters S F L M I N'
  end
  return runs
end

-- Policies: JSON with every field, checked once and then remembered by their text (pure, so remembering is safe).

local POLICY_FIELDS = {'failureThreshold', 'recoveryTimeoutMs', 'halfOpenLimit', 'successThreshold', 'probeTimeoutMs'}
local POLICY_BOUNDS = {
  failureThreshold = {1, 1000000},
  recoveryTimeoutMs = {100, 86400000},
  halfOpenLimit = {1, 1000},
  successThreshold = {1, 1000},
  probeTimeoutMs = {100, 3600000},
}

-- The policy of a JSON text, or nil and what is wrong with it.
local function parse_policy(text)
  local decoded, raw = pcall(cjson.decode, text)
  if not decoded or type(raw) ~= 'table' then return nil, 'not a JSON object' end
  local policy, pieces = {}, {}
  for _, name in ipairs(POLICY_FIELDS) do
    local value, bounds = raw[name], POLICY_BOUNDS[name]
    if value == nil then return nil, name .. ': missing' end
    if type(value) ~= 'number' or value % 1 ~= 0 or value < bounds[1] or value > bounds[2] then
      return nil, name .. ': must be a whole number from ' .. bounds[1] .. ' to ' .. bounds[2]
    end
    policy[name] = value
    pieces[#pieces + 1] = string.format('"%s":%d', name, value)
  end
  for name in pairs(raw) do
    if not POLICY_BOUNDS[name] then
      return nil, 'a field that this version does not know: ' .. string.gsub(string.sub(tostring(name), 1, 40), '%c', ' ')
    end
  end
  policy.text = '{' .. table.concat(pieces, ',') .. '}'  -- canonical: equal policies have equal texts
  return policy
end

local known_policies, known_count = {}, 0

local function policy_of(text)
  local policy = known_policies[text]
  if not policy then
    policy = parse_policy(text)
    if not policy then return nil end
    if known_count >= 1000 then known_policies, known_count = {}, 0 end
    known_policies[text], known_count = policy, known_count + 1
  end
  return policy
end

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

-- The two shared names, for readers that know only these: a hash of states and a channel of changes. Advisory.

local function rfc3339(ms)
  local days, rest = math.floor(ms / 86400000), ms % 86400000
  -- Civil date from days since 1970-01-01, by eras of 400 years (Howard Hinnant, "chrono-Compatible Date Algorithms").
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03dZ', year, month, day, math.floor(rest / 3600000),
    math.floor(rest / 60000) % 60, math.floor(rest / 1000) % 60, rest % 1000)
end

local function shared_names(key)
  local prefix, service = parts(key)
  local shared = prefix == 'cb:' and '' or prefix
  return shared .. 'circuit_breaker_states', shared .. 'circuit_breaker_updates', service
end

local function message(b, service, note)
  return string.format('{"service":"%s","state":"%s","timestamp":"%s","previous":"%s","reason":"%s",'
    .. '"incarnation":%d,"generation":%d,"revision":%d,"retryAfterMs":%d,"version":1}', service, note.state,
    rfc3339(note.at), note.previous, note.reason, b.incarnation, note.generation, b.revision, note.retry)
end

local function failed(reply) return type(reply) == 'table' and reply.err ~= nil end

-- Tells the shared names what changed. They may refuse (another type at that name, no permission, no memory) without
-- hurting the breaker: its own keys are written already. `projectFailed` then asks the next tick to repair it.
local function project(b)
  if b.project ~= 1 or #b.notes == 0 then return end
  local states, updates, service = shared_names(b.key)
  local wrong = failed(redis.pcall('HSET', states, service, b.state))
  for _, note in ipairs(b.notes) do
    if failed(redis.pcall('PUBLISH', updates, message(b, service, note))) then wrong = true end
  end
  local flag = wrong and 1 or 0
  if b.projectFailed ~= flag then
    b.projectFailed = flag
    redis.call('HSET', b.key, 'projectFailed', flag)
  end
end

-- A hint that says the present state once more: after a repair, or when only the policy changed.
local function note_again(b, now, reason)
  b.notes[#b.notes + 1] = {previous = b.state, state = b.state, reason = reason, generation = b.generation, at = now,
    retry = b.state == OPEN and math.max(0, b.openUntil - now) or 0}
end

-- cb_version: which contract is spoken here, by which edition of the library.
--   KEYS   none   ARGS  none   WRITES  no
--   REPLY  {contract_version, library_version, digest}
--   ERRORS none
redis.register_function{function_name = 'cb_version', flags = {'no-writes'}, callback = function()
  return {CONTRACT_VERSION, LIBRARY_VERSION, DIGEST}
end}

-- cb_configure: puts a policy in force; makes the breaker when there is none.
--   KEYS   breaker   ARGS  owner, uid, generation, policy, project, [resume]   WRITES  yes
--   REPLY  {state, incarnation, generation, revision, retry_after_ms, result}
--   ERRORS CBARG    an argument has the wrong form; the text names it
--          CBOWNER  the breaker belongs to another owner
-- result: Created, Restored, Replaced (another uid was there), Updated, Unchanged, Stale (an older generation of the
-- resource; nothing done). policy and resume are JSON. An edit never causes a transition by itself: rules are tested at
-- the next outcome, leases given stay, counts stay; while Open the opening's end is measured anew from its beginning.

local RESUME_NUMBERS = {'incarnation', 'generation', 'since', 'openUntil', 'attempt'}

-- {lastReset} or the whole state to start from, or nil and what is wrong.
local function parse_resume(text)
  local decoded, raw = pcall(cjson.decode, text)
  if not decoded or type(raw) ~= 'table' then return nil, 'not a JSON object' end
  local resume = {lastReset = raw.lastReset or '', state = raw.state}
  if type(resume.lastReset) ~= 'string' or (resume.lastReset ~= '' and not is_id(resume.lastReset)) then
    return nil, 'lastReset: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"'
  end
  if resume.state == nil then return resume end
  if resume.state ~= CLOSED and resume.state ~= OPEN and resume.state ~= HALF_OPEN then
    return nil, 'state: must be Closed, Open or HalfOpen'
  end
  for _, name in ipairs(RESUME_NUMBERS) do
    local value = raw[name] or 0
    if type(value) ~= 'number' or value % 1 ~= 0 or value < 0 or value > 9000000000000 then
      return nil, name .. ': must be a whole number from 0 to 9000000000000'
    end
    resume[name] = value
  end
  return resume
end

local function begin(key, now, owner, uid, generation, rules, project_flag, resume, least_incarnation)
  local b = blank(key)
  b.rules, b.live, b.streak = rules, 0, 0
  for _, name in ipairs(NUMBER_FIELDS) do b[name] = 0 end
  local resumed = resume and resume.state and true or false
  local state = resumed and resume.state or CLOSED
  local fields = {
    owner = owner, uid = uid, policy = rules.text, resourceGeneration = generation, project = project_flag,
    incarnation = math.max(now, least_incarnation), revision = 1, countedAt = now,
    generation = resumed and resume.generation + 1 or 1,
    state = state, reason = resumed and 'Restored' or 'Created',
    since = resumed and math.min(resume.since, now) or now,
    attempt = resumed and state ~= CLOSED and math.max(1, resume.attempt) or 0,
    lastReset = resume and resume.lastReset or '',
  }
  if state == OPEN then
    fields.openLength = rules.recoveryTimeoutMs
    fields.openUntil = math.min(resume.openUntil, now + rules.recoveryTimeoutMs)
  elseif state == HALF_OPEN then
    fields.probeLength = rules.probeTimeoutMs
  end
  op(b, 'DEL', key, key .. ':window', probes_key(b), reporters_key(b), history_key(b))
  for name, value in pairs(fields) do b[name], b.changed[name] = value, value end
  record(b, now, '')
  return b, resumed
end

-- The fields of the hash are written after the keys of whatever was there are gone.
local function save_new(b)
  local ops = b.ops
  b.ops = {}
  for _, command in ipairs(ops) do redis.call(unpack(command)) end
  save(b)
end

local function configure(keys, args)
  local wrong = wrong_call(keys, args, 5, 6)
  if wrong then return wrong end
  local key, owner, uid, generation = keys[1], args[1], args[2], whole(args[3])
  if not is_id(owner) then return refuse('owner: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  if not is_id(uid) then return refuse('uid: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  if not generation then return refuse('generation: must be a whole number') end
  local rules, policy_error = parse_policy(args[4])
  if not rules then return refuse('policy: ' .. policy_error) end
  if args[5] ~= '0' and args[5] ~= '1' then return refuse('project: must be 0 or 1') end
  local project_flag, resume, resume_error = tonumber(args[5]), nil, nil
  if args[6] then
    resume, resume_error = parse_resume(args[6])
    if not resume then return refuse('resume: ' .. resume_error) end
  end

  local stored_owner = redis.call('HGET', key, 'owner') or owner
  if stored_owner ~= owner and stored_owner ~= ENV then
    return redis.error_reply('CBOWNER the breaker belongs to owner ' .. stored_owner)
  end
  local now, result = clock_ms(), 'Unchanged'
  local b = read(key)
  if b and b.uid == uid then
    settle_time(b, now)
    if generation < b.resourceGeneration then
      result = 'Stale'
    else
      set(b, 'resourceGeneration', generation)
      set(b, 'project', project_flag)
      if rules.text ~= b.policy then
        result = 'Updated'
        b.rules = rules
        set(b, 'policy', rules.text)
        set(b, 'revision', b.revision + 1)
        if b.state == OPEN then
          set(b, 'openLength', rules.recoveryTimeoutMs)
          set(b, 'openUntil', b.since + b.openLength)
        end
        note_again(b, now, 'PolicyApplied')
      end
    end
    save(b)
  else
    local damaged_incarnation = tonumber(redis.call('HGET', key, 'incarnation') or 0) or 0
    local least = math.max(damaged_incarnation, resume and resume.incarnation or 0) + 1
    local replaced = b ~= nil
    if replaced and resume then resume.state = nil end
    local resumed
    b, resumed = begin(key, now, owner, uid, generation, rules, project_flag, resume, least)
    result = replaced and 'Replaced' or resumed and 'Restored' or 'Created'
    save_new(b)
  end
  project(b)
  local reply = standing(b, now, uid)
  reply[6] = result
  return reply
end

redis.register_function{function_name = 'cb_configure', callback = configure}

-- cb_acquire: may this call be made? In HalfOpen a permit is a probe with a lease.
--   KEYS   breaker   ARGS  client, lease   WRITES  yes, allow-oom
--   REPLY  {state, incarnation, generation, revision, retry_after_ms, decision, lease_ms}
--   ERRORS CBUNKNOWN  no breaker at that key
--          CBARG      an argument has the wrong form; the text names it
-- decision: Permitted, Probe, NotPermitted. The client chooses the lease id, a new one for each question; asked again
-- with the same id a probe gets the same answer with what is left of its lease, and after its end NotPermitted.

local function acquire(keys, args)
  local wrong = wrong_call(keys, args, 2)
  if wrong then return wrong end
  local client, lease = args[1], args[2]
  if not is_id(client) then return refuse('client: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  if not is_id(lease) then return refuse('lease: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  local b = read(keys[1])
  if not b then return unknown(keys[1]) end
  local now = clock_ms()
  settle_time(b, now)
  local decision, lease_ms = 'NotPermitted', 0
  if b.state == CLOSED then
    decision = 'Permitted'
  elseif b.state == HALF_OPEN then
    local score = lease_score(b, lease)
    if score > now then
      decision, lease_ms = 'Probe', math.min(score - now, b.probeLength)
    elseif score == 0 and b.live < b.rules.halfOpenLimit then
      decision, lease_ms = 'Probe', b.rules.probeTimeoutMs
      op(b, 'ZADD', probes_key(b), now + lease_ms, lease)
      add(b, 'probesGranted', 1)
      set(b, 'probeLength', math.max(b.probeLength, lease_ms))
      b.leases_changed, b.live = true, b.live + 1
    end
  end
  if decision == 'NotPermitted' then raise(b, 'notPermitted', 1) end
  save(b)
  project(b)
  local reply = standing(b, now, client)
  if decision ~= 'NotPermitted' then reply[5] = 0 end
  -- A refusal always says when to come back, also where the slots have room (a lease that has ended asks again).
  if decision == 'NotPermitted' then reply[5] = math.max(1, reply[5]) end
  reply[6], reply[7] = decision, lease_ms
  return reply
end

redis.register_function{function_name = 'cb_acquire', callback = acquire, flags = {'allow-oom'}}

-- cb_report: counts a batch of outcomes of one generation, in order.
--   KEYS   breaker   ARGS  client, seq, incarnation, generation, batch   WRITES  yes
--   REPLY  {state, incarnation, generation, revision, retry_after_ms}
--   ERRORS CBUNKNOWN  no breaker at that key
--          CBARG      an argument has the wrong form; the text names it
-- batch: runs like "S120 F1 L3", letters S success, F failure, L slow success, M slow failure, I ignored, N calls that
-- the client did not permit. A seq that is not larger than the client's last one was seen already: nothing is counted.

local function report(keys, args)
  local wrong = wrong_call(keys, args, 5)
  if wrong then return wrong end
  local client, seq, incarnation, generation = args[1], whole(args[2]), whole(args[3]), whole(args[4])
  if not is_id(client) then return refuse('client: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  if not seq or seq < 1 then return refuse('seq: must be a whole number from 1') end
  if not incarnation then return refuse('incarnation: must be a whole number') end
  if not generation then return refuse('generation: must be a whole number') end
  local runs, batch_error = parse_batch(args[5])
  if not runs then return refuse('batch: ' .. batch_error) end
  local b = read(keys[1])
  if not b then return unknown(keys[1]) end
  local now = clock_ms()
  settle_time(b, now)
  local seen, bad = reporter_of(b, client)
  if seq > seen then
    for _, run in ipairs(runs) do
      local letter, count = run[1], run[2]
      if letter == 'N' then
        raise(b, 'notPermitted', count)
      elseif letter == 'I' then
        raise(b, 'ignored', count)
      elseif b.state == CLOSED and same_generation(b, incarnation, generation) then
        if letter == 'F' or letter == 'M' then bad = now end
        raise(b, 'late', count_run(b, now, letter, count))
      else
        raise(b, 'late', count)
      end
    end
    touch(b, now, client, seq, bad)
  end
  save(b)
  project(b)
  return standing(b, now, client)
end

redis.register_function{function_name = 'cb_report', callback = report}

-- cb_settle: the outcome of a probe; closes or opens the breaker when the policy says so.
--   KEYS   breaker   ARGS  client, lease, incarnation, generation, outcome   WRITES  yes, allow-oom
--   REPLY  {state, incarnation, generation, revision, retry_after_ms}
--   ERRORS CBUNKNOWN  no breaker at that key
--          CBARG      an argument has the wrong form; the text names it
-- outcome: S, F, L, M or I, as in cb_report. Counted once, however often it is sent.

local OUTCOMES = {S = 'probesSucceeded', L = 'probesSucceeded', F = 'probesFailed', M = 'probesFailed', I = 'probesIgnored'}

local function settle(keys, args)
  local wrong = wrong_call(keys, args, 5)
  if wrong then return wrong end
  local client, lease, incarnation, generation, outcome = args[1], args[2], whole(args[3]), whole(args[4]), args[5]
  if not is_id(client) then return refuse('client: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  if not is_id(lease) then return refuse('lease: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  if not incarnation then return refuse('incarnation: must be a whole number') end
  if not generation then return refuse('generation: must be a whole number') end
  if not OUTCOMES[outcome] then return refuse('outcome: must be S, F, L, M or I') end
  local b = read(keys[1])
  if not b then return unknown(keys[1]) end
  local now = clock_ms()
  settle_time(b, now, lease)
  local score = lease_score(b, lease)
  if not is_settled(score) then
    local known = score ~= 0 and b.state == HALF_OPEN
    local asked = known and same_generation(b, incarnation, generation)
    if asked or not known then  -- law 2: a lease of this generation is not touched by an outcome of another
      op(b, 'ZADD', probes_key(b), -100000000000000 - now, lease)
      b.leases_changed = true
    end
    if asked then
      if score > now then b.live = b.live - 1 end
      add(b, OUTCOMES[outcome], 1)
      add_totals(b, outcome, 1)
      if OUTCOMES[outcome] == 'probesSucceeded' then
        set(b, 'probeSuccesses', b.probeSuccesses + 1)
        if b.probeSuccesses >= b.rules.successThreshold then transition(b, now, CLOSED, 'ProbesSucceeded') end
      elseif OUTCOMES[outcome] == 'probesFailed' then
        transition(b, now, OPEN, 'ProbeFailed')
      end
    end
    if outcome == 'I' then raise(b, 'ignored', 1) elseif not asked then raise(b, 'late', 1) end
  end
  local seen, bad = reporter_of(b, client)
  touch(b, now, client, seen, bad)
  save(b)
  project(b)
  return standing(b, now, client)
end

redis.register_function{function_name = 'cb_settle', callback = settle, flags = {'allow-oom'}}

-- cb_observe: the whole snapshot, as names and values in turn.
--   KEYS   breaker   ARGS  [history]   WRITES  no
--   REPLY  {name, value, ...}; transitionTotals holds {previous, state, reason, count} each, history {name, value, ...}
--   ERRORS CBUNKNOWN  no breaker at that key
--          CBARG      an argument has the wrong form; the text names it
-- history: how many of the newest transitions to add, 0 (default) to 256, oldest first. Shows what is stored and says
-- due=1 when a transition is due that nobody has asked for.

local PROBE_TOTALS = {'probesGranted', 'probesSucceeded', 'probesFailed', 'probesIgnored', 'probesExpired'}

local function count_reporters(b, now)
  local count = 0
  for _, raw in ipairs(redis.call('HVALS', reporters_key(b))) do
    local seen = tonumber(string.match(raw, '^%d+:(%d+):%d+$') or 0)
    if seen > now - REPORTER_SEEN_MS then count = count + 1 end
  end
  return count
end

local function newest_history(b, count)
  local entries = {}
  if count > 0 then
    local found = redis.call('XREVRANGE', history_key(b), '+', '-', 'COUNT', count)
    for i = #found, 1, -1 do entries[#entries + 1] = found[i][2] end
  end
  return entries
end

local function observe(keys, args)
  local wrong = wrong_call(keys, args, 0, 1)
  if wrong then return wrong end
  local count = whole(args[1] or '0')
  if not count or count > MAX_HISTORY then return refuse('history: must be a whole number from 0 to ' .. MAX_HISTORY) end
  local b = read(keys[1])
  if not b then return unknown(keys[1]) end
  local now, due = clock_ms(), 0
  believe(b, now)
  b.live = 0
  if b.state == OPEN and now >= b.openUntil then due = 1 end
  if b.state == HALF_OPEN then
    b.live = count_live(b, now)
    if redis.call('ZCOUNT', probes_key(b), '(0', string.format('%d', now)) > 0 then due = 1 end
  end
  local extra, transition_totals = {}, {}
  local all = redis.call('HGETALL', keys[1])
  for i = 1, #all, 2 do
    local previous, state, reason = string.match(all[i], '^t:(%a+):(%a+):(%a+)$')
    if previous then
      transition_totals[#transition_totals + 1] = {previous, state, reason, tonumber(all[i + 1]) or 0}
    else
      extra[all[i]] = tonumber(all[i + 1]) or 0
    end
  end
  local reply = {
    'now', now, 'due', due, 'retryAfterMs', retry_after_ms(b, now, ''), 'consecutiveFailures', b.streak,
    'probesLive', b.live, 'reporters', count_reporters(b, now),
  }
  for _, name in ipairs(FIELDS) do
    reply[#reply + 1] = name
    reply[#reply + 1] = b[name]
  end
  for _, name in ipairs(PROBE_TOTALS) do
    reply[#reply + 1] = name
    reply[#reply + 1] = extra[name] or 0
  end
  for _, state in ipairs({CLOSED, OPEN, HALF_OPEN}) do
    reply[#reply + 1] = 'ms' .. state
    reply[#reply + 1] = (extra['ms:' .. state] or 0) + (state == b.state and now - b.countedAt or 0)
  end
  reply[#reply + 1] = 'transitionTotals'
  reply[#reply + 1] = transition_totals
  reply[#reply + 1] = 'history'
  reply[#reply + 1] = newest_history(b, count)
  return reply
end

redis.register_function{function_name = 'cb_observe', callback = observe, flags = {'no-writes'}}

-- cb_tick: does what is due and says when the next thing is; repairs the shared names.
--   KEYS   breaker   ARGS  none   WRITES  yes, allow-oom
--   REPLY  {state, incarnation, generation, revision, retry_after_ms, due_in_ms, activity}
--   ERRORS CBUNKNOWN  no breaker at that key
--          CBARG      an argument has the wrong form; the text names it
-- due_in_ms: -1 when nothing is timed. activity: rises with every outcome and refusal that was counted.

local function tick(keys, args)
  local wrong = wrong_call(keys, args, 0)
  if wrong then return wrong end
  local b = read(keys[1])
  if not b then return unknown(keys[1]) end
  local now = clock_ms()
  settle_time(b, now)
  save(b)
  if b.project == 1 and #b.notes == 0 then
    local states, _, service = shared_names(b.key)
    local shown = redis.pcall('HGET', states, service)
    if b.projectFailed == 1 or shown ~= b.state then note_again(b, now, b.reason) end
  end
  project(b)
  local due_in = -1
  if b.state == OPEN then due_in = math.max(0, b.openUntil - now) end
  if b.state == HALF_OPEN then
    local expiry = next_expiry(b, now)
    if expiry then due_in = math.min(expiry - now, b.probeLength) end
  end
  local reply = standing(b, now, '')
  reply[6], reply[7] = due_in, b.successes + b.failures + b.ignored + b.notPermitted + b.late
  return reply
end

redis.register_function{function_name = 'cb_tick', callback = tick, flags = {'allow-oom'}}

-- cb_reset: closes the breaker and forgets attempts, streak and window; totals stay.
--   KEYS   breaker   ARGS  uid, token   WRITES  yes, allow-oom
--   REPLY  {state, incarnation, generation, revision, retry_after_ms, done}
--   ERRORS CBUNKNOWN  no breaker at that key
--          CBARG      an argument has the wrong form; the text names it
--          CBOWNER    the breaker belongs to another uid
-- The same token twice does nothing (done = 0).

local function reset(keys, args)
  local wrong = wrong_call(keys, args, 2)
  if wrong then return wrong end
  local uid, token = args[1], args[2]
  if not is_id(uid) then return refuse('uid: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  if not is_id(token) then return refuse('token: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  local b = read(keys[1])
  if not b then return unknown(keys[1]) end
  if b.uid ~= uid then return redis.error_reply('CBOWNER the breaker belongs to uid ' .. b.uid) end
  local now, done = clock_ms(), 0
  settle_time(b, now)
  if b.lastReset ~= token then
    done = 1
    set(b, 'lastReset', token)
    transition(b, now, CLOSED, 'Reset')
  end
  save(b)
  project(b)
  local reply = standing(b, now, uid)
  reply[6] = done
  return reply
end

redis.register_function{function_name = 'cb_reset', callback = reset, flags = {'allow-oom'}}

-- cb_delete: removes the breaker of that uid, with everything it left.
--   KEYS   breaker   ARGS  owner, uid   WRITES  yes, allow-oom
--   REPLY  {deleted}
--   ERRORS CBARG    an argument has the wrong form; the text names it
--          CBOWNER  the breaker belongs to another owner
-- deleted: 0 when there is none, or one of another uid. A message with state "" says it to those who listen.

local function delete(keys, args)
  local wrong = wrong_call(keys, args, 2)
  if wrong then return wrong end
  local key, owner, uid = keys[1], args[1], args[2]
  if not is_id(owner) then return refuse('owner: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  if not is_id(uid) then return refuse('uid: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  local stored = redis.call('HMGET', key, 'owner', 'uid')
  if not stored[1] then return {0} end
  if stored[1] ~= owner then return redis.error_reply('CBOWNER the breaker belongs to owner ' .. stored[1]) end
  if stored[2] ~= uid then return {0} end
  local b = read(key)
  local now = clock_ms()
  redis.call('DEL', key, key .. ':window', key .. ':probes', key .. ':reporters', key .. ':history')
  if b and b.project == 1 then
    local states, updates, service = shared_names(key)
    redis.pcall('HDEL', states, service)
    redis.pcall('PUBLISH', updates, message(b, service, {previous = b.state, state = '', reason = 'Deleted',
      generation = b.generation, at = now, retry = 0}))
  end
  return {1}
end

redis.register_function{function_name = 'cb_delete', callback = delete, flags = {'allow-oom'}}
