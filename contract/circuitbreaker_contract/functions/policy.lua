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
