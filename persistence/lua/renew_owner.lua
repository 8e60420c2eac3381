-- owner, lease in ms, whether it has registered before, until when it may register. Answers 1, or 0
-- if it is no owner any more (it is being emptied, or has been), or may have been one meanwhile.
local lease, now = redis.call('ZSCORE', LEASES, ARGV[1]), now_ms()
if lease and tonumber(lease) == 0 then return 0 end
if not lease and ARGV[3] == '1' then return 0 end
if not lease and now > tonumber(ARGV[4]) then return 0 end

redis.call('ZADD', LEASES, now + ARGV[2], ARGV[1])
note_load(ARGV[1])
if not lease then take_from_aside() end
return 1
