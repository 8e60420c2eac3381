-- id, definition, owners_max, then how many arguments fields, rows, events and indexes take, then
-- these themselves. Answers {'ok', owner} or {'no definition'}.
local id, definition = ARGV[1], ARGV[2]
local key = EXECUTION .. id
local first_owner = redis.call('HGET', key, 'f')
if first_owner then return {'ok', first_owner} end
if not definition_is_stored(definition) then return {'no definition'} end

local owner = choose_owner(tonumber(ARGV[3]))
local fields_end = 7 + ARGV[4]
local rows_end = fields_end + ARGV[5]
local events_end = rows_end + ARGV[6]
local indexes_end = events_end + ARGV[7]
local number = redis.call('INCR', CREATED)
set_fields(key, 8, fields_end)
set_fields(ROWS .. id, fields_end + 1, rows_end)
local seq = append_events(id, 0, rows_end + 1, events_end)
local indexes = enter_indexes(nil, events_end + 1, indexes_end)
refer(definition)
local epoch = '0'
if owner == '' then
  redis.call('ZADD', WAITING, number, id)
else
  epoch = '1'
  give(id, number, owner)
end
redis.call('HSET', key, 'v', '1', 'e', epoch, 's', seq, 'o', owner, 'd', definition,
  'f', owner, 'n', number, 'x', indexes)
return {'ok', owner}
