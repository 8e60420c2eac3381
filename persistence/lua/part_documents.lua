-- Documents go with what they refer to; one about a checkpoint takes the copy along. A checkpoint
-- that an owner took by itself ('a' names its execution) also leaves the list of those.

local function checkpoint_document(id)
  return DOCUMENT .. '10:checkpoint:' .. id
end

local function delete_document(key, checkpoint)
  local stored = redis.call('HMGET', key, 'v', 'd', 'x')
  if not stored[1] then return 0 end

  enter_indexes(stored[3], {})
  redis.call('DEL', key)
  if stored[2] and stored[2] ~= '' then drop_reference(stored[2]) end
  if checkpoint ~= '' then
    local copy = redis.call('HMGET', CHECKPOINT .. checkpoint, 'd', 'h', 'a')
    if copy[1] then
      redis.call('UNLINK', CHECKPOINT .. checkpoint, CHECKPOINT_ROWS .. checkpoint)
      drop_reference(copy[1])
      let_go(held_by(copy[2]))
      if copy[3] then redis.call('ZREM', OWN_CHECKPOINTS .. copy[3], checkpoint) end
    end
  end
  return 1
end

-- Delete the oldest of those that owners of an execution took, until `kept` are left.
local function trim_own_checkpoints(id, kept)
  local own = OWN_CHECKPOINTS .. id
  local excess = redis.call('ZCARD', own) - kept
  if excess < 1 then return end
  local oldest = redis.call('ZRANGE', own, 0, excess - 1)
  for at = 1, #oldest do
    delete_document(checkpoint_document(oldest[at]), oldest[at])
    redis.call('ZREM', own, oldest[at])
  end
end
