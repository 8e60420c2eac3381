-- checkpoint id, execution id, epoch, number, how many are kept, body, and packed: indexes.
-- Answers 0 if it is there (taken now or before), else {reason, what is stored}.
local checkpoint, id = ARGV[1], ARGV[2]
local document = checkpoint_document(checkpoint)
local head = redis.call('HMGET', EXECUTION .. id, 'e', 'd', 'z', 'h', 'v')
if not head[1] then return {'missing', ''} end
if head[1] ~= ARGV[3] then return {'epoch', head[1]} end
if redis.call('EXISTS', CHECKPOINT .. checkpoint) == 1 then return 0 end
if head[3] then return {'ended', head[5]} end
if redis.call('EXISTS', document) == 1 then return {'exists', ''} end

local stored = {definition = head[2], holds = head[4]}
copy_execution(id, checkpoint, document, stored, ARGV[6], cmsgpack.unpack(ARGV[7]))
redis.call('HSET', CHECKPOINT .. checkpoint, 'a', id)
redis.call('ZADD', OWN_CHECKPOINTS .. id, ARGV[4], checkpoint)
trim_own_checkpoints(id, tonumber(ARGV[5]))
return 0
