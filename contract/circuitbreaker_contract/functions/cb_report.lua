-- cb_report: counts a batch of outcomes of one generation, in order.
--   KEYS   breaker   ARGS  client, seq, incarnation, generation, batch   WRITES  yes
--   REPLY  {state, incarnation, generation, revision, retry_after_ms}
--   ERRORS CBUNKNOWN  no breaker at that key
--          CBARG      an argument has the wrong form; the text names it
-- batch: runs like "S120 F1 L3", letters S success, F failure, L slow success, M slow failure, I ignored, N calls that
-- the client did not permit. A seq that is not larger than the client's last one was seen already: nothing is counted.

local function report(keys, args)
  if #args == 5 then
    local runs = known_batches[args[5]] or parse_batch(args[5])
    local quick = runs and #keys == 1 and good_keys[keys[1]] and report_quickly(keys[1], args, runs)
    if quick then return quick end
  end
  local wrong = wrong_call(keys, args, 5)
  if wrong then return wrong end
  local client, seq, incarnation, generation = args[1], whole(args[2]), order_number(args[3]), order_number(args[4])
  if not is_id(client) then return refuse('client: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  if not seq or seq < 1 then return refuse('seq: must be a whole number from 1') end
  if not incarnation then return refuse('incarnation: must be a whole number') end
  if not generation then return refuse('generation: must be a whole number') end
  local runs, batch_error = parse_batch(args[5])
  if not runs then return refuse('batch: ' .. batch_error) end
  local b = read(keys[1])
  if not b then return unknown(keys[1]) end
  local now = clock_ms()
  settle_time(b, now)
  local reporter = reporter_of(b, client)
  if seq > reporter.seq then
    count_batch(b, now, reporter, runs, function() return same_generation(b, incarnation, generation) end)
    reporter.seq = seq
    touch(b, now, reporter)
  end
  save(b)
  return standing(b, now, client)
end

redis.register_function{function_name = 'cb_report', callback = report}
