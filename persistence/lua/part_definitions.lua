-- Definitions live as long as something refers to them.

local function definition_is_stored(digest)
  return redis.call('EXISTS', DEFINITION .. digest) == 1
end

local function refer(digest)
  if redis.call('HINCRBY', DEFINITION .. digest, 'n', 1) == 1 then
    redis.call('PERSIST', DEFINITION .. digest)
  end
end

local function drop_reference(digest)
  if redis.call('HINCRBY', DEFINITION .. digest, 'n', -1) <= 0 then
    redis.call('DEL', DEFINITION .. digest)
  end
end
