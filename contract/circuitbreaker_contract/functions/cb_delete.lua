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
  if stored[1] ~= owner then return redis.error_reply('CBOWNER the breaker belongs to owner ' .. cut(stored[1])) end
  if stored[2] ~= uid then return {0} end
  local b = read(key)
  local now = clock_ms()
  redis.call('DEL', key, key .. ':window', key .. ':probes', key .. ':reporters', key .. ':history')
  if b and b.project == SHARED then
    local states, _, service = shared_names(key)
    redis.pcall('HDEL', states, service)
  end
  if b and b.project ~= 0 then
    publish(b, {previous = b.state, state = '', reason = 'Deleted', generation = b.generation, at = now, retry = 0})
  end
  return {1}
end

redis.register_function{function_name = 'cb_delete', callback = delete, flags = {'allow-oom'}}
