-- id, epoch. Answers 1 if it is alone with its owner and suspects wait for that, else 0. When it is
-- repeated after a lost reply its isolation has ended already, so that does not decide.
local id, key = ARGV[1], EXECUTION .. ARGV[1]
local head = redis.call('HMGET', key, 'e', 'o', 'z')
if head[1] ~= ARGV[2] or head[2] == '' or head[3] then return 0 end

redis.call('HSET', key, 'c', 0)
if is_isolated(id, head[2]) then redis.call('HDEL', ISOLATED, head[2]) end
if redis.call('ZCARD', OWNED .. head[2]) ~= 1 then return 0 end
return redis.call('ZCARD', SUSPECTS) > 0 and 1 or 0
