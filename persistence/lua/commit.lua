-- id, epoch, version, first_seq, release, packed: fields, rows, outputs, events, inbox_done, indexes
-- (false to leave them), entries_max of the log, owner.
-- Answers 0 if the commit is written (now or before), else {reason, what is stored}.
local id, version = ARGV[1], tonumber(ARGV[3])
local key = EXECUTION .. id
local head = redis.call('HMGET', key, 'e', 'v', 's', 'o', 'z', 'x')
if not head[1] then return {'missing', ''} end
if head[1] ~= ARGV[2] then return {'epoch', head[1]} end
-- A server that has lost its last second gives an epoch twice: the owner tells them apart.
if head[4] ~= '' and head[4] ~= ARGV[8] then return {'owner', head[4]} end
local stored = tonumber(head[2])
if stored == version then return 0 end
if head[5] then return {'ended', head[2]} end
if stored ~= version - 1 then return {'version', head[2]} end
local fields, rows, outputs, events, done, indexes = unpack(cmsgpack.unpack(ARGV[6]))
local seq, owner = head[3], head[4]
if #events > 0 and tonumber(ARGV[4]) ~= seq + 1 then return {'seq', seq} end

set_fields(key, fields)
set_fields(ROWS .. id, rows)
for at = 1, #outputs, 2 do
  redis.call('HSETNX', OUTPUTS .. id, outputs[at], outputs[at + 1])
end
if #events > 0 then seq = append_events(id, tonumber(seq), events, ARGV[7]) end
if #done > 0 then
  acknowledge(id, done)
  if owner ~= '' and redis.call('XLEN', INBOX .. id) == 0 then
    redis.call('ZREM', MAIL .. owner, id)
  end
end
if indexes then redis.call('HSET', key, 'x', enter_indexes(head[6], indexes)) end
if ARGV[5] == '1' then
  if owner == '' then leave_queue(id) else take_from(id, owner) end
  redis.call('HSET', key, 'o', '', 'z', '1')
  redis.call('ZADD', ENDED, now_ms(), id)
  redis.call('DECR', LIVE)
end
redis.call('HSET', key, 'v', ARGV[3], 's', seq)
return 0
