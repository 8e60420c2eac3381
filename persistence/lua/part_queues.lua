-- Executions without an owner wait in one of two queues. Those that were there when an owner died,
-- and have not shown since that it was not their doing, are suspects: each gets an owner that has
-- nothing else, and that owner nothing else while it is under suspicion (ISOLATED).

local function leave_queue(id)
  redis.call('ZREM', WAITING, id)
  redis.call('ZREM', SUSPECTS, id)
end

local function count_crash(id)
  redis.call('HINCRBY', EXECUTION .. id, 'c', 1)
  redis.call('HINCRBY', EXECUTION .. id, 'C', 1)
end

local function is_suspect(id)
  return tonumber(redis.call('HGET', EXECUTION .. id, 'c') or 0) > 0
end

local function is_isolated(id, owner)
  return redis.call('HGET', ISOLATED, owner) == id
end
