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
  local quick = refuse_quickly(keys[1])
  if quick then return quick end
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
  if decision == 'NotPermitted' then add(b, 'notPermitted', 1) end
  save(b)
  local reply = standing(b, now, client)
  if decision ~= 'NotPermitted' then reply[5] = 0 end
  -- A refusal always says when to come back, also where the slots have room (a lease that has ended asks again); -1: when
  -- a person ends the override.
  if decision == 'NotPermitted' and reply[5] == 0 then reply[5] = 1 end
  reply[6], reply[7] = decision, lease_ms
  return reply
end

redis.register_function{function_name = 'cb_acquire', callback = acquire, flags = {'allow-oom'}}
