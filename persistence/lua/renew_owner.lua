-- owner, lease in ms, whether it has registered before. Answers 1, or 0 if it is no owner any more:
-- it is being emptied, or has been.
local lease = redis.call('ZSCORE', LEASES, ARGV[1])
if lease and tonumber(lease) == 0 then return 0 end
if not lease and ARGV[3] == '1' then return 0 end
redis.call('ZADD', LEASES, now_ms() + ARGV[2], ARGV[1])
note_load(ARGV[1])
return 1
