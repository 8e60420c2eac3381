-- owner, limit. Answers how many executions were moved.
local owner = ARGV[1]
if not redis.call('ZSCORE', LEASES, owner) then return 0 end

redis.call('ZADD', LEASES, 0, owner)
local moved = redis.call('ZRANGE', OWNED .. owner, 0, ARGV[2] - 1, 'WITHSCORES')
for at = 1, #moved, 2 do
  redis.call('ZREM', OWNED .. owner, moved[at])
  redis.call('ZREM', MAIL .. owner, moved[at])
  redis.call('HSET', EXECUTION .. moved[at], 'o', '')
  redis.call('ZADD', WAITING, moved[at + 1], moved[at])
end
if redis.call('ZCARD', OWNED .. owner) == 0 then
  redis.call('ZREM', OWNERS, owner)
  redis.call('ZREM', LEASES, owner)
else
  note_load(owner)
end
return #moved / 2
