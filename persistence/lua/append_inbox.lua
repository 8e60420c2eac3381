-- id, entry id, body, and for an outcome the epoch of the owner that it is for (else '').
-- Answers {'ok', owner}, {'missing'}, {'epoch', stored}, {'ended'} or {'full'}.
local id, entry_id, epoch = ARGV[1], ARGV[2], ARGV[4]
local head = redis.call('HMGET', EXECUTION .. id, 'o', 'z', 'e')
if not head[1] then return {'missing'} end
if epoch ~= '' and head[3] ~= epoch then return {'epoch', head[3]} end
if redis.call('HEXISTS', SEEN .. id, entry_id) == 1 then return {'ok', head[1]} end
if head[2] then return {'ended'} end
-- A claim answers the oldest thousand entries: no outcome may be missing among them, nor may
-- outcomes keep a request out of them.
if epoch ~= '' and redis.call('XLEN', INBOX .. id) >= outcomes_below then return {'full'} end
append_entry(id, head[1], entry_id, ARGV[3], epoch ~= '' and 'e' or '')
return {'ok', head[1]}
