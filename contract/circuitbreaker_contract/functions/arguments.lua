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

local good_keys, good_count = {}, 0  -- keys that have passed; pure, so remembering is safe

local function is_breaker_key(key)
  if good_keys[key] then return true end
  if not parts(key) then return false end
  if good_count >= 10000 then good_keys, good_count = {}, 0 end
  good_keys[key], good_count = true, good_count + 1
  return true
end

-- What every function checks first: its one key and how many arguments it takes.
local function wrong_call(keys, args, least, most)
  if #keys ~= 1 then return refuse('one key is needed, the breaker\'s') end
  if not is_breaker_key(keys[1]) then
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
