-- id, epoch. Answers 1 if it is alone with its owner and suspects wait for that, else 0. After 1 it
-- is to be given on: its isolation lasts until then, or the owner might get others in between.
local id, key = ARGV[1], EXECUTION .. ARGV[1]
local head = redis.call('HMGET', key, 'e', 'o', 'z')
if head[1] ~= ARGV[2] or head[2] == '' or head[3] then return 0 end

redis.call('HSET', key, 'c', 0)
local is_alone = redis.call('ZCARD', OWNED .. head[2]) == 1
if is_alone and redis.call('ZCARD', SUSPECTS) > 0 then return 1 end
if is_isolated(id, head[2]) then redis.call('HDEL', ISOLATED, head[2]) end
return 0
