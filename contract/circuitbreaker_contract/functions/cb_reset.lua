-- cb_reset: closes the breaker and forgets attempts, streak and window; totals stay.
--   KEYS   breaker   ARGS  uid, token   WRITES  yes, allow-oom
--   REPLY  {state, incarnation, generation, revision, retry_after_ms, done}
--   ERRORS CBUNKNOWN  no breaker at that key
--          CBARG      an argument has the wrong form; the text names it
--          CBOWNER    the breaker belongs to another uid
-- The same token twice does nothing (done = 0). An override stays in force; in Observe the shadow is cleared too.

local function reset(keys, args)
  local wrong = wrong_call(keys, args, 2)
  if wrong then return wrong end
  local uid, token = args[1], args[2]
  if not is_id(uid) then return refuse('uid: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  if not is_id(token) then return refuse('token: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  local b = read(keys[1])
  if not b then return unknown(keys[1]) end
  if warm(b).uid ~= uid then return redis.error_reply('CBOWNER the breaker belongs to uid ' .. cut(b.uid)) end
  local now, done = clock_ms(), 0
  settle_time(b, now)
  if b.lastReset ~= token then
    done = 1
    set(b, 'lastReset', token)
    if b.rules.mode == 'Observe' then shadow_begins(b, now) end
    forget_counts(b)
    transition(b, now, b.forced ~= '' and b.forced or CLOSED, 'Reset')
  end
  save(b)
  local reply = standing(b, now, uid)
  reply[6] = done
  return reply
end

redis.register_function{function_name = 'cb_reset', callback = reset, flags = {'allow-oom'}}
