-- Policies: JSON, checked once and then remembered by text and by id, a digest of it. Left out means: the default that
-- `parse_numbers` and `parse_words` give, or that the rule is off.

local POLICY_NUMBERS = {
  -- name, lowest, highest; in the order of the canonical text
  {'failureThreshold', 0, 1000000}, {'recoveryTimeoutMs', 100, 86400000}, {'halfOpenLimit', 1, 1000},
  {'successThreshold', 1, 1000}, {'probeTimeoutMs', 100, 3600000}, {'windowCalls', 1, 10000}, {'windowMs', 1000, 3600000},
  {'minimumCalls', 1, 10000}, {'failureRatePercent', 1, 100}, {'slowCallDurationMs', 1, 3600000},
  {'slowCallRatePercent', 1, 100}, {'backoffFactor', 1, 10}, {'backoffMaxMs', 100, 86400000}, {'jitterPercent', 0, 50},
  {'minReporters', 1, 1000},
}
local POLICY_REQUIRED = 5  -- the first ones
local POLICY_WORDS = {mode = true, overrideState = true, overrideUntil = true, overrideReason = true}

local function parse_numbers(raw, policy)
  for i = 1, #POLICY_NUMBERS do
    local name, low, high = POLICY_NUMBERS[i][1], POLICY_NUMBERS[i][2], POLICY_NUMBERS[i][3]
    local value = raw[name]
    if value == nil and i <= POLICY_REQUIRED then return name .. ': missing' end
    if value ~= nil then
      if type(value) ~= 'number' or value % 1 ~= 0 or value < low or value > high then
        return name .. ': must be a whole number from ' .. low .. ' to ' .. high
      end
      policy[name] = value
    end
  end
  if policy.windowCalls and policy.windowMs then return 'windowCalls: set only one of windowCalls and windowMs' end
  if not policy.windowCalls and not policy.windowMs then policy.windowMs = 60000 end
  policy.minimumCalls = policy.minimumCalls or math.min(10, policy.windowCalls or 10)
  policy.minReporters = policy.minReporters or 1
end

local function parse_words(raw, policy)
  policy.mode = given(raw.mode, 'Enforce')
  if policy.mode ~= 'Enforce' and policy.mode ~= 'Observe' then return 'mode: must be Enforce or Observe' end
  if raw.overrideState == nil then
    if raw.overrideUntil ~= nil or raw.overrideReason ~= nil then return 'overrideState: missing' end
    return
  end
  if raw.overrideState ~= OPEN and raw.overrideState ~= CLOSED then return 'overrideState: must be Open or Closed' end
  local till, why = given(raw.overrideUntil, 0), raw.overrideReason
  if type(till) ~= 'number' or till % 1 ~= 0 or till < 0 or till > 9000000000000 then
    return 'overrideUntil: must be a whole number from 0 to 9000000000000'
  end
  if type(why) ~= 'string' or #why < 1 or #why > 1024 or string.find(why, '%c') then
    return 'overrideReason: must be 1 to 1024 bytes without control characters'
  end
  policy.overrideState, policy.overrideUntil, policy.overrideReason = raw.overrideState, till, why
end

-- What one field by itself cannot say.
local function contradiction(policy)
  if policy.windowCalls and policy.minimumCalls > policy.windowCalls then
    return 'minimumCalls: must not be larger than windowCalls'
  end
  if policy.failureThreshold == 0 and not policy.failureRatePercent and not policy.slowCallRatePercent then
    return 'failureThreshold: 0 turns off the only rule; set failureRatePercent or slowCallRatePercent'
  end
  if (policy.slowCallDurationMs == nil) ~= (policy.slowCallRatePercent == nil) then
    return 'slowCallDurationMs: set slowCallDurationMs and slowCallRatePercent together'
  end
  if (policy.backoffFactor == nil) ~= (policy.backoffMaxMs == nil) then
    return 'backoffFactor: set backoffFactor and backoffMaxMs together'
  end
  if policy.jitterPercent and not policy.backoffFactor then return 'jitterPercent: set backoffFactor as well' end
  if policy.backoffMaxMs and policy.backoffMaxMs < policy.recoveryTimeoutMs then
    return 'backoffMaxMs: must not be shorter than recoveryTimeoutMs'
  end
  if policy.mode == 'Observe' and policy.overrideState == OPEN then
    return 'overrideState: Open refuses calls and mode Observe never does'
  end
end

-- Equal policies have equal texts.
local function canonical(policy)
  local pieces = {}
  for i = 1, #POLICY_NUMBERS do
    local name = POLICY_NUMBERS[i][1]
    if policy[name] then pieces[#pieces + 1] = string.format('"%s":%d', name, policy[name]) end
  end
  pieces[#pieces + 1] = '"mode":"' .. policy.mode .. '"'
  if policy.overrideState then
    pieces[#pieces + 1] = string.format('"overrideState":"%s","overrideUntil":%d,"overrideReason":"%s"',
      policy.overrideState, policy.overrideUntil, (string.gsub(policy.overrideReason, '["\\]', '\\%0')))
  end
  return '{' .. table.concat(pieces, ',') .. '}'
end

-- The policy of a JSON text, or nil and what is wrong with it.
local function parse_policy(text)
  local raw = parse_object(text)
  if not raw then return nil, 'not a JSON object' end
  local policy, known = {}, {}
  for i = 1, #POLICY_NUMBERS do known[POLICY_NUMBERS[i][1]] = true end
  local wrong = parse_numbers(raw, policy) or parse_words(raw, policy)
  if wrong then return nil, wrong end
  for name in pairs(raw) do
    if not known[name] and not POLICY_WORDS[name] then
      return nil, 'a field that this version does not know: ' .. string.gsub(string.sub(tostring(name), 1, 40), '%c', ' ')
    end
  end
  wrong = contradiction(policy)
  if wrong then return nil, wrong end
  policy.text = canonical(policy)
  policy.id = tonumber(string.sub(redis.sha1hex(policy.text), 1, 12), 16)  -- 48 bits: a double holds them
  return policy
end

local policies_by_text, policies_by_id = {}, {}

local function policy_of(text)
  local policy = policies_by_text[text]
  if not policy then
    policy = #text <= LONGEST_TEXT and parse_policy(text)
    if not policy then return nil end
    if is_full('policies', 1000) then policies_by_text, policies_by_id = {}, {} end
    policies_by_text[text], policies_by_id[policy.id] = policy, policy
  end
  return policy
end
