-- id, epoch, version, first_seq, release, then how many arguments fields, rows, outputs, events,
-- inbox_done and indexes take (indexes: -1 to leave them), then these themselves.
-- Answers 0 if the commit is written (now or before), else {reason, what is stored}.
local id, version = ARGV[1], tonumber(ARGV[3])
local key = EXECUTION .. id
local head = redis.call('HMGET', key, 'e', 'v', 's', 'o', 'z', 'x')
if not head[1] then return {'missing', ''} end
if head[1] ~= ARGV[2] then return {'epoch', head[1]} end
local stored = tonumber(head[2])
if stored == version then return 0 end
if head[5] then return {'ended', head[2]} end
if stored ~= version - 1 then return {'version', head[2]} end
local fields_end = 11 + ARGV[6]
local rows_end = fields_end + ARGV[7]
local outputs_end = rows_end + ARGV[8]
local events_end = outputs_end + ARGV[9]
local done_end = events_end + ARGV[10]
local seq = head[3]
if events_end > outputs_end and tonumber(ARGV[4]) ~= seq + 1 then return {'seq', seq} end

set_fields(key, 12, fields_end)
set_fields(ROWS .. id, fields_end + 1, rows_end)
for at = rows_end + 1, outputs_end, 2 do
  redis.call('HSETNX', OUTPUTS .. id, ARGV[at], ARGV[at + 1])
end
if events_end > outputs_end then
  seq = append_events(id, tonumber(seq), outputs_end + 1, events_end)
end
local owner = head[4]
if done_end > events_end then
  for at = events_end + 1, done_end do
    local entry = redis.call('HGET', SEEN .. id, ARGV[at])
    if entry and entry ~= '' then
      redis.call('XDEL', INBOX .. id, entry)
      redis.call('HSET', SEEN .. id, ARGV[at], '')
    end
  end
  if owner ~= '' and redis.call('XLEN', INBOX .. id) == 0 then
    redis.call('ZREM', MAIL .. owner, id)
  end
end
if ARGV[11] ~= '-1' then
  redis.call('HSET', key, 'x', enter_indexes(head[6], done_end + 1, done_end + ARGV[11]))
end
if ARGV[5] == '1' then
  if owner == '' then redis.call('ZREM', WAITING, id) else take_from(id, owner) end
  redis.call('HSET', key, 'o', '', 'z', '1')
end
redis.call('HSET', key, 'v', ARGV[3], 's', seq)
return 0
