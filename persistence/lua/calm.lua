-- id, epoch. Answers 1 if others wait for the isolation that it has been in, else 0.
local id, key = ARGV[1], EXECUTION .. ARGV[1]
local head = redis.call('HMGET', key, 'e', 'o', 'z')
if head[1] ~= ARGV[2] or head[3] then return 0 end

redis.call('HSET', key, 'c', 0)
if not is_isolated(id, head[2]) then return 0 end
redis.call('HDEL', ISOLATED, head[2])
return redis.call('ZCARD', SUSPECTS) > 0 and 1 or 0
