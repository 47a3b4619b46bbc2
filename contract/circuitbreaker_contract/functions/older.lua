-- Breakers as the first two editions stored them: every value in a field of its own, reporters in a hash at `:reporters`
-- as seq:seen:bad:streak. A writing function stores such a breaker anew before its own work; one that only looks reads it
-- as it is.

local OLDER_TEXTS = {'policy', 'state', 'forced'}
local OLDER = joined_names(OLDER_TEXTS, PACKED_NUMBERS)

local function older_reporters(key)
  local entries, all = {}, redis.call('HGETALL', key .. ':reporters')
  for i = 1, #all, 2 do
    local seq, seen, bad, id = string.match(all[i + 1], '^(%d+):(%d+):(%d+):?(%d*)$')
    if seq then
      entries[#entries + 1] = 'c:' .. all[i]
      entries[#entries + 1] = struct.pack(REPORTER_FORMAT, tonumber(seq), tonumber(seen), tonumber(bad), tonumber(id) or 0, 0)
    end
  end
  return entries
end

local function read_older(key)
  local values = redis.call('HMGET', key, unpack(OLDER))
  local rules = values[1] and policy_of(values[1])
  if not rules or not STATE_WORDS[values[2]] or not FORCED_WORDS[values[3] or ''] then return nil end
  local b = blank(key, rules, values[1])
  b.state, b.forced = values[2], values[3] or ''
  for i = #OLDER_TEXTS + 1, #OLDER do b[OLDER[i]] = values[i] and tonumber(values[i]) or 0 end
  if not (b.incarnation >= 1 and b.generation >= 1) then return nil end
  b.older = {reporters = older_reporters(key)}
  return b
end

local function store_anew(b)
  local reporters = b.older.reporters
  redis.call('HSET', b.key, 'standing', packed_standing(b), 'counts', packed_counts(b), 'policy', b.policy,
    'reportersKept', #reporters / 2, unpack(reporters))
  for i = 2, #OLDER do redis.call('HDEL', b.key, OLDER[i]) end
  redis.call('DEL', b.key .. ':reporters')
  b.older = nil
end

-- The breaker at key for one who may not write.
local function look(key)
  local stored = redis.call('HMGET', key, 'standing', 'counts', 'policy')
  if not stored[3] then return nil end
  if not stored[1] and not stored[2] then return read_older(key) end
  return stored[1] and stored[2] and unpacked(key, stored[1], stored[2], stored[3]) or nil
end

-- The incarnation of a breaker that cannot be read any more, as far as it can be told; clients may know it.
local function damaged_incarnation(key)
  local stored = redis.call('HMGET', key, 'standing', 'incarnation')
  local found = stored[1] and #stored[1] >= 16 and select(2, struct.unpack('<dd', stored[1])) or tonumber(stored[2] or 0)
  return found and found >= 0 and found < 9007199254740992 and math.floor(found) or 0
end

local function read(key)
  local b = look(key)
  if b and b.older then store_anew(b) end
  return b
end
