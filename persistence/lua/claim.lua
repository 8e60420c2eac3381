-- id, owner. Answers the state, 'ended', 'missing' or 'no owner'.
local head = redis.call('HMGET', EXECUTION .. ARGV[1], 'v', 'z')
if not head[1] then return 'missing' end
if head[2] then return 'ended' end
if not is_on_roster(ARGV[2]) then return 'no owner' end
return claim(ARGV[1], ARGV[2])
