-- The longest lease that is given, or "". Answers owner, load and whether its lease has run out,
-- three by three; one that is longer is from before the clock was put back, and has.
local roster, answer, now = redis.call('ZRANGE', OWNERS, 0, -1, 'WITHSCORES'), {}, now_ms()
local latest = now + (tonumber(ARGV[1]) or math.huge)
for at = 1, #roster, 2 do
  local lease = tonumber(redis.call('ZSCORE', LEASES, roster[at]) or 0)
  answer[#answer + 1] = roster[at]
  answer[#answer + 1] = tonumber(roster[at + 1])
  answer[#answer + 1] = (lease <= now or lease > latest) and 1 or 0
end
return answer
