-- bucket, tokens, microseconds per token, burst. Answers {granted, wait in ms}.
-- What is kept is the time at which the bucket will be full again (GCRA): nothing has to fill it.
local key, each, burst = RATE .. ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- A debt beyond the whole bucket can only come from a clock that was set back.
local debt = math.min(math.max(tonumber(redis.call('GET', key) or 0) - now, 0), burst * each)
-- One microsecond of grace, because the sums are rounded.
local granted = math.min(tonumber(ARGV[2]), math.floor((burst * each - debt + 1) / each))
if granted < 1 then
  return {0, math.max(1, math.ceil((debt - (burst - 1) * each) / 1000))}
end
debt = debt + granted * each
redis.call('SET', key, string.format('%.17g', now + debt), 'PX', math.ceil(debt / 1000) + 1)
return {granted, 0}
