-- owner. Answers 1 if it is off the roster, 0 if it has something.
if redis.call('ZCARD', OWNED .. ARGV[1]) > 0 then return 0 end
redis.call('ZREM', OWNERS, ARGV[1])
if redis.call('ZREM', LEASES, ARGV[1]) == 1 then take_from_aside() end
return 1
