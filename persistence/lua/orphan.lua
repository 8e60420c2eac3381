-- owner, limit, whether its death is put down to what it had, how long crashes are kept. Answers how
-- many were moved.
local owner, blame = ARGV[1], ARGV[3] == '1'
if not redis.call('ZSCORE', LEASES, owner) then return 0 end

redis.call('ZADD', LEASES, 0, owner)
redis.call('HDEL', ISOLATED, owner)
local moved = redis.call('ZRANGE', OWNED .. owner, 0, ARGV[2] - 1, 'WITHSCORES')
for at = 1, #moved, 2 do
  local id = moved[at]
  redis.call('ZREM', OWNED .. owner, id)
  redis.call('ZREM', MAIL .. owner, id)
  redis.call('HSET', EXECUTION .. id, 'o', '')
  if blame then count_crash(id, ARGV[4]) end
  enter_queue(id, moved[at + 1])
end
if redis.call('ZCARD', OWNED .. owner) == 0 then
  redis.call('ZREM', OWNERS, owner)
  redis.call('ZREM', LEASES, owner)
  take_from_aside()
else
  note_load(owner)
end
return #moved / 2
