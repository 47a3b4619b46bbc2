-- cb_observe: the whole snapshot, as names and values in turn.
--   KEYS   breaker   ARGS  [history]   WRITES  no
--   REPLY  {name, value, ...}; transitionTotals holds {previous, state, reason, count} each, history {name, value, ...}
--   ERRORS CBUNKNOWN  no breaker at that key
--          CBARG      an argument has the wrong form; the text names it
-- history: how many of the newest transitions to add, 0 (default) to 256, oldest first. Shows what is stored and says
-- due=1 when a transition is due that nobody has asked for. A text that is longer than any of ours is cut, and an entry
-- of the history that is comes as an empty one.

local PROBE_TOTALS = {'probesGranted', 'probesSucceeded', 'probesFailed', 'probesIgnored', 'probesExpired'}

local MOST_TRANSITION_TOTALS = 256  -- there are fewer than a hundred ways from state to state

local function is_short(entry)
  local size = 0
  for i = 1, #entry do size = size + #entry[i] end
  return #entry <= 64 and size <= LONGEST_TEXT
end

local function count_reporters(b, now)
  local count, all = 0, reporters_of(b)
  for i = 1, #all do
    if all[i].seen > now - REPORTER_SEEN_MS then count = count + 1 end
  end
  return count
end

local function newest_history(b, count)
  local entries = {}
  if count > 0 then
    local found = redis.call('XREVRANGE', history_key(b), '+', '-', 'COUNT', count)
    for i = #found, 1, -1 do entries[#entries + 1] = is_short(found[i][2]) and found[i][2] or {} end
  end
  return entries
end

local function observe(keys, args)
  local wrong = wrong_call(keys, args, 0, 1)
  if wrong then return wrong end
  local count = whole(args[1] or '0')
  if not count or count > MAX_HISTORY then return refuse('history: must be a whole number from 0 to ' .. MAX_HISTORY) end
  local b = look(keys[1])
  if not b then return unknown(keys[1]) end
  local now = clock_ms()
  b.all = redis.call('HGETALL', keys[1])
  warm(b)
  believe(b, now)
  local due = is_override_over(b, now) or is_opening_over(b, now) or is_shadow_due(b, now)
  if b.state == HALF_OPEN then
    b.live = count_live(b, now)
    due = due or are_probes_lost(b) or redis.call('ZCOUNT', probes_key(b), '(0', whole_text(now)) > 0
  end
  b.windowCalls, b.windowFailures, b.windowSlow = window_sums(b, now)
  local extra, transition_totals = {}, {}
  for i = 1, #b.all, 2 do
    local previous, state, reason = string.match(b.all[i], '^t:(%a+):(%a+):(%a+)$')
    if previous and #b.all[i] <= 128 and #transition_totals < MOST_TRANSITION_TOTALS then
      transition_totals[#transition_totals + 1] = {previous, state, reason, tonumber(b.all[i + 1]) or 0}
    else
      extra[b.all[i]] = tonumber(b.all[i + 1]) or 0
    end
  end
  local reply = {
    'now', now, 'due', due and 1 or 0, 'retryAfterMs', retry_after_ms(b, now, ''), 'consecutiveFailures', b.streak,
    'probesLive', b.live, 'reporters', count_reporters(b, now), 'policy', b.policy, 'state', b.state, 'forced', b.forced,
  }
  for _, names in ipairs({PACKED_NUMBERS, COLD}) do
    for _, name in ipairs(names) do
      reply[#reply + 1] = name
      reply[#reply + 1] = cut(b[name])
    end
  end
  for _, name in ipairs(PROBE_TOTALS) do
    reply[#reply + 1] = name
    reply[#reply + 1] = extra[name] or 0
  end
  for _, state in ipairs({CLOSED, OPEN, HALF_OPEN}) do
    reply[#reply + 1] = 'ms' .. state
    reply[#reply + 1] = (extra['ms:' .. state] or 0) + (state == b.state and math.max(0, now - b.countedAt) or 0)
  end
  reply[#reply + 1] = 'transitionTotals'
  reply[#reply + 1] = transition_totals
  reply[#reply + 1] = 'history'
  reply[#reply + 1] = newest_history(b, count)
  return reply
end

redis.register_function{function_name = 'cb_observe', callback = observe, flags = {'no-writes'}}
