-- checkpoint id, execution id, document key suffix, body, whether there is a note, its id, its
-- body, and packed: indexes. Answers the copy's fields and rows, 'missing' or 'exists'.
local copy, copy_rows = CHECKPOINT .. ARGV[1], CHECKPOINT_ROWS .. ARGV[1]
local id, document = ARGV[2], DOCUMENT .. ARGV[3]
if redis.call('EXISTS', copy) == 0 then
  local head = redis.call('HMGET', EXECUTION .. id, 'o', 'd', 'z', 'h')
  if not head[1] then return 'missing' end
  if redis.call('EXISTS', document) == 1 then return 'exists' end

  local entries, holds = cmsgpack.unpack(ARGV[8]), held_by(head[4])
  holds[#holds + 1] = id
  redis.call('COPY', EXECUTION .. id, copy)
  redis.call('COPY', ROWS .. id, copy_rows)
  redis.call('HSET', copy, 'h', cmsgpack.pack(holds))
  refer(head[2])
  hold(holds)
  redis.call('HSET', document, 'b', ARGV[4], 'v', '1', 'x', enter_indexes(nil, entries))
  if ARGV[5] == '1' and not head[3] and redis.call('HEXISTS', SEEN .. id, ARGV[6]) == 0 then
    append_entry(id, head[1], ARGV[6], ARGV[7])
  end
end
return {redis.call('HGETALL', copy), redis.call('HGETALL', copy_rows)}
