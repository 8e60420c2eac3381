-- checkpoint id, execution id, document key suffix, body, whether there is a note, its id, its
-- body, and packed: indexes. Answers the copy's fields, rows and constants, 'missing' or
-- 'exists'.
local id, document = ARGV[2], DOCUMENT .. ARGV[3]
if redis.call('EXISTS', CHECKPOINT .. ARGV[1]) == 0 then
  local head = redis.call('HMGET', EXECUTION .. id, 'o', 'd', 'z', 'h')
  if not head[1] then return 'missing' end
  if redis.call('EXISTS', document) == 1 then return 'exists' end

  local stored = {definition = head[2], holds = head[4]}
  copy_execution(id, ARGV[1], document, stored, ARGV[4], cmsgpack.unpack(ARGV[8]))
  if ARGV[5] == '1' and not head[3] and redis.call('HEXISTS', SEEN .. id, ARGV[6]) == 0 then
    append_entry(id, head[1], ARGV[6], ARGV[7])
  end
end
return read_copy(ARGV[1])
