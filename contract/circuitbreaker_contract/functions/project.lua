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

-- What a breaker's `project` asks for: 0 nothing, 1 the hash and the channel, 2 messages only, on the shared channel and on
-- the namespace's own. With 2 the hash is left to the operator: in a Cluster it is in another slot, and applications that
-- are kept apart may neither write it nor hear the shared channel. PUBLISH has no slot and reaches every node.
local SHARED, MESSAGES = 1, 2

-- Whether something went wrong.
local function publish(b, note)
  local _, updates, service = shared_names(b.key)
  local text = message(b, service, note)
  local wrong = failed(redis.pcall('PUBLISH', updates, text))
  if b.project == MESSAGES then
    local own = updates .. ':' .. string.match(service, '^[^/]+')
    if failed(redis.pcall('PUBLISH', own, text)) then wrong = true end
  end
  return wrong
end

-- Tells the shared names what changed. They may refuse (another type at that name, no permission, no memory) without
-- hurting the breaker: its own keys are written already. `projectFailed` then asks the next tick to repair it.
local function project(b)
  if b.project == 0 or #b.notes == 0 then return end
  local wrong = false
  if b.project == SHARED then
    local states, _, service = shared_names(b.key)
    wrong = failed(redis.pcall('HSET', states, service, b.state))
  end
  for _, note in ipairs(b.notes) do
    if publish(b, note) then wrong = true end
  end
  local flag = wrong and 1 or 0
  if warm(b).projectFailed ~= flag then
    b.projectFailed = flag
    redis.call('HSET', b.key, 'projectFailed', flag)
  end
end

-- Writes everything that changed, the breaker's own keys in one block, then tells the shared names.
local function save(b)
  for _, command in ipairs(b.ops) do redis.call(unpack(command)) end
  save_window(b)
  local fields = {}
  for name, value in pairs(b.changed) do
    fields[#fields + 1] = name
    -- Redis would turn a number into text itself, but slower.
    fields[#fields + 1] = type(value) == 'number' and string.format('%d', value) or value
  end
  if #fields > 0 then redis.call('HSET', b.key, unpack(fields)) end
  for name, count in pairs(b.added) do redis.call('HINCRBY', b.key, name, count) end
  if b.leases_changed then
    trim_leases(probes_key(b), '-inf', '-100000000000000')
    trim_leases(probes_key(b), '-10000000000000', '(0')
    redis.call('PEXPIRE', probes_key(b), b.rules.probeTimeoutMs + KEPT_MS)
  end
  for _, move in ipairs(b.moves) do
    redis.call('XADD', history_key(b), 'MAXLEN', '=', MAX_HISTORY, '*', unpack(move))
  end
  project(b)
end
