-- packed: ids of which nothing is left, ids that could not be removed and go behind all others.
local removed, later = unpack(cmsgpack.unpack(ARGV[1]))
for at = 1, #removed do redis.call('ZREM', GARBAGE, removed[at]) end
for at = 1, #later do redis.call('ZADD', GARBAGE, 'XX', now_ms(), later[at]) end
return 0
