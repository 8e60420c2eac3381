-- A checkpoint as it is read: its fields, its rows, and the constants of the execution it is of,
-- which is the last that it holds.

local function read_copy(checkpoint)
  local key = CHECKPOINT .. checkpoint
  local holds, constants = held_by(redis.call('HGET', key, 'h')), {}
  if #holds > 0 then constants = redis.call('HGETALL', CONSTANTS .. holds[#holds]) end
  return {redis.call('HGETALL', key), redis.call('HGETALL', CHECKPOINT_ROWS .. checkpoint), constants}
end
