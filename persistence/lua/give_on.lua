-- id, epoch, whether the owner's trouble is put down to it, how long crashes are kept, whether it
-- waits for another owner than those that are there. Answers 0.
local id, key = ARGV[1], EXECUTION .. ARGV[1]
local head = redis.call('HMGET', key, 'e', 'o', 'n', 'z')
if head[1] ~= ARGV[2] or head[2] == '' or head[4] then return 0 end

take_from(id, head[2])
if ARGV[3] == '1' then count_crash(id, ARGV[4]) end
redis.call('HSET', key, 'o', '')
redis.call('ZADD', ARGV[5] == '1' and ASIDE or WAITING, head[3], id)
return 0
