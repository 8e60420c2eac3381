-- What both claims do: give the execution to the owner under the next epoch, answer its state.

local function claim(id, owner)
  local key = EXECUTION .. id
  local head = redis.call('HMGET', key, 'o', 'n')
  local stays_alone = is_suspect(id) and is_isolated(id, owner)
  if head[1] == '' then leave_queue(id) else take_from(id, head[1]) end
  redis.call('HINCRBY', key, 'e', 1)
  redis.call('HSET', key, 'o', owner)
  give(id, head[2], owner)
  if stays_alone then redis.call('HSET', ISOLATED, owner, id) end
  local inbox = redis.call('XRANGE', INBOX .. id, '-', '+', 'COUNT', 1000)
  if #inbox > 0 then redis.call('ZADD', MAIL .. owner, now_ms(), id) end
  return {id, redis.call('HGETALL', key), redis.call('HGETALL', ROWS .. id), inbox,
    redis.call('HGETALL', CONSTANTS .. id)}
end
