-- clock_ms: the one reading of time in a call. TIME moves while a function runs, so it is read once and handed down.
-- Tests join another file in place of this one.
local function clock_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
