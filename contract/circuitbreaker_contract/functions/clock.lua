-- clock_ms: the one reading of time in a call. TIME moves while a function runs, so it is read once and handed down.
-- Tests join another file in place of this one.
local second, second_ms  -- the last second read: its text, and the same in ms

local function clock_ms()
  local time = redis.call('TIME')
  if time[1] ~= second then second, second_ms = time[1], tonumber(time[1]) * 1000 end
  local rest_us = time[2] + 0
  return second_ms + (rest_us - rest_us % 1000) / 1000
end
