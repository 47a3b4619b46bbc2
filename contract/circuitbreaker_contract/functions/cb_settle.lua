-- cb_settle: the outcome of a probe; closes or opens the breaker when the policy says so.
--   KEYS   breaker   ARGS  client, lease, incarnation, generation, outcome   WRITES  yes, allow-oom
--   REPLY  {state, incarnation, generation, revision, retry_after_ms}
--   ERRORS CBUNKNOWN  no breaker at that key
--          CBARG      an argument has the wrong form; the text names it
-- outcome: S, F, L, M or I, as in cb_report. Counted once, however often it is sent.

local OUTCOMES = {S = true, F = true, L = true, M = true, I = true}

local function settle_probe(b, now, outcome)
  if outcome == 'I' then
    add(b, 'probesIgnored', 1)
    return
  end
  add_totals(b, outcome, 1)
  if is_bad(outcome) or (outcome == 'L' and b.rules.slowCallRatePercent) then
    add(b, 'probesFailed', 1)
    transition(b, now, OPEN, 'ProbeFailed')
    return
  end
  add(b, 'probesSucceeded', 1)
  set(b, 'probeSuccesses', b.probeSuccesses + 1)
  if b.probeSuccesses >= b.rules.successThreshold then transition(b, now, CLOSED, 'ProbesSucceeded') end
end

local function settle(keys, args)
  local wrong = wrong_call(keys, args, 5)
  if wrong then return wrong end
  local client, lease, incarnation, generation, outcome = args[1], args[2], whole(args[3]), whole(args[4]), args[5]
  if not is_id(client) then return refuse('client: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  if not is_id(lease) then return refuse('lease: must be 1 to 64 of A-Z, a-z, 0-9 and "_.:-"') end
  if not incarnation then return refuse('incarnation: must be a whole number') end
  if not generation then return refuse('generation: must be a whole number') end
  if not OUTCOMES[outcome] then return refuse('outcome: must be S, F, L, M or I') end
  local b = read(keys[1])
  if not b then return unknown(keys[1]) end
  local now = clock_ms()
  settle_time(b, now, lease)
  local score = lease_score(b, lease)
  local asked = score ~= 0 and not is_settled(score) and b.state == HALF_OPEN
  if not same_generation(b, incarnation, generation) then
    -- Law 2: a lease of this generation is not touched by an outcome of another. That one is remembered beside it.
    local beside = lease .. '@' .. whole_text(incarnation) .. '.' .. whole_text(generation)
    local beside_score = lease_score(b, beside)
    if asked or is_settled(beside_score) then lease, score, asked = beside, beside_score, false end
  end
  if not is_settled(score) then
    op(b, 'ZADD', probes_key(b), -100000000000000 - now, lease)
    b.leases_changed = true
    if asked then
      if score > now then b.live = b.live - 1 end
      settle_probe(b, now, outcome)
    end
    if outcome == 'I' then add(b, 'ignored', 1) elseif not asked then add(b, 'late', 1) end
  end
  touch(b, now, reporter_of(b, client))
  save(b)
  return standing(b, now, client)
end

redis.register_function{function_name = 'cb_settle', callback = settle, flags = {'allow-oom'}}
