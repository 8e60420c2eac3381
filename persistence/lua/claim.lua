-- id, owner. Answers the state, 'ended' or 'missing'.
local head = redis.call('HMGET', EXECUTION .. ARGV[1], 'v', 'z')
if not head[1] then return 'missing' end
if head[2] then return 'ended' end
return claim(ARGV[1], ARGV[2])
