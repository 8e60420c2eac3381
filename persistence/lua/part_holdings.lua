-- Outputs, constants and files of an execution are kept as long as anything holds them: the
-- execution itself while it is there, checkpoints of it, executions that were restored from those.
-- HELD counts all but the first. What nobody holds is garbage: its outputs and constants go at
-- once, its blobs and files when whoever can reach them has seen the id in GARBAGE.

local function is_kept(id)
  return redis.call('EXISTS', EXECUTION .. id) == 1 or redis.call('HEXISTS', HELD, id) == 1
end

local function held_by(stored)
  if stored and stored ~= '' then return cmsgpack.unpack(stored) end
  return {}
end

local function hold(ids)
  for at = 1, #ids do redis.call('HINCRBY', HELD, ids[at], 1) end
end

local function discard_unless_kept(id)
  if is_kept(id) then return end
  redis.call('UNLINK', OUTPUTS .. id, CONSTANTS .. id)
  redis.call('ZADD', GARBAGE, now_ms(), id)
end

local function let_go(ids)
  for at = 1, #ids do
    if redis.call('HINCRBY', HELD, ids[at], -1) <= 0 then
      redis.call('HDEL', HELD, ids[at])
      discard_unless_kept(ids[at])
    end
  end
end
