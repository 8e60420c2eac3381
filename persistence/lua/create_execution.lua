-- id, definition, owners_max, live_max, load_max, packed: fields, rows, events, indexes, holds, the
-- list in which it must be alone ('' for none), constants, and entries_max of the log.
-- Answers {'ok', owner}, {'not alone'}, {'full'}, {'not kept', id} or {'no definition'}.
local id, definition = ARGV[1], ARGV[2]
local key = EXECUTION .. id
local first_owner = redis.call('HGET', key, 'f')
if first_owner then return {'ok', first_owner} end
local fields, rows, events, entries, holds, sole, constants = unpack(cmsgpack.unpack(ARGV[6]))
if sole ~= '' and redis.call('EXISTS', INDEX .. sole) == 1 then return {'not alone'} end
if tonumber(redis.call('GET', LIVE) or 0) >= tonumber(ARGV[4]) then return {'full'} end
for at = 1, #holds do
  if not is_kept(holds[at]) then return {'not kept', holds[at]} end
end
if not definition_is_stored(definition) then return {'no definition'} end
local owner = choose_owner(tonumber(ARGV[3]), tonumber(ARGV[5]))

local number = redis.call('INCR', CREATED)
set_fields(key, fields)
set_fields(ROWS .. id, rows)
if redis.call('EXISTS', CONSTANTS .. id) == 0 then set_fields(CONSTANTS .. id, constants) end
local seq = append_events(id, 0, events, ARGV[7])
local indexes = enter_indexes(nil, entries)
refer(definition)
hold(holds)
redis.call('INCR', LIVE)
local epoch = '0'
if owner == '' then
  redis.call('ZADD', WAITING, number, id)
else
  epoch = '1'
  give(id, number, owner)
end
redis.call('HSET', key, 'v', '1', 'e', epoch, 's', seq, 'o', owner, 'd', definition,
  'f', owner, 'n', number, 'x', indexes, 'h', #holds > 0 and cmsgpack.pack(holds) or '')
return {'ok', owner}
