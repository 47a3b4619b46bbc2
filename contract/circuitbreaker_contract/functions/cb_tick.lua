-- cb_tick: does what is due and says when the next thing is; repairs the shared names.
--   KEYS   breaker   ARGS  none   WRITES  yes, allow-oom
--   REPLY  {state, incarnation, generation, revision, retry_after_ms, due_in_ms, activity}
--   ERRORS CBUNKNOWN  no breaker at that key
--          CBARG      an argument has the wrong form; the text names it
-- due_in_ms: -1 when nothing is timed. activity: rises with every outcome and refusal that was counted.

local function tick(keys, args)
  local wrong = wrong_call(keys, args, 0)
  if wrong then return wrong end
  local b = read(keys[1])
  if not b then return unknown(keys[1]) end
  local now = clock_ms()
  settle_time(b, now)
  if b.project == MESSAGES and #b.notes == 0 and warm(b).projectFailed == 1 then note(b, now, b.state, warm(b).reason) end
  if b.project == SHARED and #b.notes == 0 then
    local states, _, service = shared_names(b.key)
    local shown = redis.pcall('HGET', states, service)
    -- A name that cannot even be read cannot be repaired from here either.
    if not failed(shown) and (warm(b).projectFailed == 1 or shown ~= b.state) then note(b, now, b.state, warm(b).reason) end
  end
  save(b)
  local reply = standing(b, now, '')
  reply[6], reply[7] = due_in_ms(b, now), b.successes + b.failures + b.ignored + b.notPermitted + b.late
  return reply
end

redis.register_function{function_name = 'cb_tick', callback = tick, flags = {'allow-oom'}}
