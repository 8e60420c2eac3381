-- age in ms, limit. Answers how many executions have expired.
local due = redis.call('ZRANGEBYSCORE', ENDED, '-inf', now_ms() - ARGV[1], 'LIMIT', 0, ARGV[2])
for at = 1, #due do
  local id = due[at]
  local head = redis.call('HMGET', EXECUTION .. id, 'x', 'd', 'h')
  local held = held_by(head[3])

  trim_own_checkpoints(id, 0)
  enter_indexes(head[1], {})
  redis.call('ZREM', ENDED, id)
  redis.call('UNLINK', EXECUTION .. id, ROWS .. id, EVENTS .. id, INBOX .. id, SEEN .. id,
    ACKNOWLEDGED .. id)
  if head[2] then drop_reference(head[2]) end
  let_go(held)
  discard_unless_kept(id)
end
if #due > 0 then redis.call('INCRBY', EXPIRED, #due) end
return #due
