-- key suffix, body, definition ('' for none), expected version ('' for any), and packed: indexes.
-- Answers {'ok', version}, or {reason, stored version}.
local key, body, definition, expected = DOCUMENT .. ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local stored = redis.call('HMGET', key, 'v', 'd', 'x')
local version = tonumber(stored[1] or 0)
if expected ~= '' and tonumber(expected) ~= version then
  if version == expected + 1 and redis.call('HGET', key, 'b') == body then
    return {'ok', version}
  end
  if expected == '0' then return {'exists', version} end
  return {version == 0 and 'missing' or 'version', version}
end
if definition ~= '' and not definition_is_stored(definition) then
  return {'no definition', version}
end
local entries = cmsgpack.unpack(ARGV[5])

local former = stored[2] or ''
if definition ~= former then
  if definition ~= '' then refer(definition) end
  if former ~= '' then drop_reference(former) end
end
redis.call('HSET', key, 'b', body, 'v', version + 1, 'd', definition,
  'x', enter_indexes(stored[3], entries))
return {'ok', version + 1}
