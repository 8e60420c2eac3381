-- id, entry id, body. Answers {'ok', owner}, {'missing'} or {'ended'}.
local id, entry_id = ARGV[1], ARGV[2]
local head = redis.call('HMGET', EXECUTION .. id, 'o', 'z')
if not head[1] then return {'missing'} end
if redis.call('HEXISTS', SEEN .. id, entry_id) == 1 then return {'ok', head[1]} end
if head[2] then return {'ended'} end
append_entry(id, head[1], entry_id, ARGV[3])
return {'ok', head[1]}
