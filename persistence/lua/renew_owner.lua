-- owner, lease in ms. One that is being emptied stays so until it has nothing left.
local lease = redis.call('ZSCORE', LEASES, ARGV[1])
if lease and tonumber(lease) == 0 then return 0 end
redis.call('ZADD', LEASES, now_ms() + ARGV[2], ARGV[1])
note_load(ARGV[1])
return 1
