-- Arguments arrive as texts from anybody; these say what is wrong with one, before anything is written.

local function is_bad(letter) return letter == 'F' or letter == 'M' end

local function is_slow(letter) return letter == 'L' or letter == 'M' end

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

-- The fields of a JSON object, else nil. To cjson a list is a table as well.
local function parse_object(text)
  local decoded, raw = pcall(cjson.decode, text)
  return decoded and type(raw) == 'table' and string.find(text, '^%s*{') and raw or nil
end

-- A field of it, or what stands for one that is left out (false and null are not left out).
local function given(value, left_out)
  if value == nil then return left_out end
  return value
end

-- What is pure is remembered by its text, in tables that begin anew when they are full.
local remembered = {}  -- how many entries each table has

local function is_full(what, most)
  local count = (remembered[what] or 0) + 1
  remembered[what] = count > most and 1 or count
  return count > most
end

local known_wholes = {}  -- numbers of orders, which come again and again

local function order_number(text)
  local number = known_wholes[text] or whole(text)
  if number and not known_wholes[text] then
    if is_full('wholes', 10000) then known_wholes = {} end
    known_wholes[text] = number
  end
  return number
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

local good_keys = {}  -- keys that have passed

local function is_breaker_key(key)
  if good_keys[key] then return true end
  if not parts(key) then return false end
  if is_full('keys', 10000) then good_keys = {} end
  good_keys[key] = true
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

-- A run, {letter, count}; of outcomes that count also what it adds to failures and to slow calls, and its letters when
-- they are few.
local function completed(letter, count)
  if letter == 'N' or letter == 'I' then return {letter, count} end
  return {letter, count, is_bad(letter) and count or 0, is_slow(letter) and count or 0,
    count <= EDGE and string.rep(letter, count) or ''}
end

local known_batches = {}  -- short ones, which come again and again

-- The runs of a batch in order, with how many calls they have and how many of these are plain successes; or nil and what
-- is wrong.
local function parse_batch(text)
  if known_batches[text] then return known_batches[text] end
  local runs = {calls = 0, plain = 0}
  for letter, digits in string.gmatch(text, '([SFLMIN])([1-9]%d*)') do
    local count = #digits <= 7 and tonumber(digits) or MAX_RUN + 1
    if count > MAX_RUN then return nil, 'a run has at most ' .. MAX_RUN .. ' calls' end
    if #runs == MAX_RUNS then return nil, 'a batch has at most ' .. MAX_RUNS .. ' runs' end
    runs[#runs + 1] = completed(letter, count)
    runs.calls, runs.plain = runs.calls + count, runs.plain + (letter == 'S' and count or 0)
  end
  -- Nothing but runs with one space between.
  if #runs == 0 or string.gsub(text .. ' ', '[SFLMIN][1-9]%d* ', '') ~= '' then
    return nil, 'must be runs like "S120 F1", letters S F L M I N'
  end
  if #text <= 16 then
    if is_full('batches', 1000) then known_batches = {} end
    known_batches[text] = runs
  end
  return runs
end
