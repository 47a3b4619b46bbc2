-- Writing a breaker.

-- Keeps the newest `MAX_ENDED_LEASES` of one class of ended leases; within a class the newest has the lowest score.
local function trim_leases(key, low, high)
  local count = redis.call('ZCOUNT', key, low, high)
  if count > MAX_ENDED_LEASES then
    local first = low == '-inf' and 0 or redis.call('ZCOUNT', key, '-inf', '(' .. low)
    redis.call('ZREMRANGEBYRANK', key, first + MAX_ENDED_LEASES, first + count - 1)
  end
end

-- Writes everything that changed, the breaker's own keys in one block, then tells the shared names.
local function save(b)
  for _, command in ipairs(b.ops) do redis.call(unpack(command)) end
  save_window(b)
  local fields = {}
  if b.dirty.standing then fields[1], fields[2] = 'standing', packed_standing(b) end
  if b.dirty.counts then fields[#fields + 1], fields[#fields + 2] = 'counts', packed_counts(b) end
  if b.touched then fields[#fields + 1], fields[#fields + 2] = 'c:' .. b.touched.client, packed_reporter(b.touched) end
  for name, value in pairs(b.changed) do
    fields[#fields + 1] = name
    -- Redis would turn a number into text itself, but slower.
    fields[#fields + 1] = type(value) == 'number' and string.format('%d', value) or value
  end
  if #fields > 0 then redis.call('HSET', b.key, unpack(fields)) end
  for name, count in pairs(b.added) do
    -- One that is damaged begins anew: what stands above is written already.
    if failed(redis.pcall('HINCRBY', b.key, name, count)) then redis.call('HSET', b.key, name, count) end
  end
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
