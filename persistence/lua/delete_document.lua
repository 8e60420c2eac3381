-- key suffix, checkpoint id ('' if the document is none). Answers 1 if it was there, else 0.
local key = DOCUMENT .. ARGV[1]
local stored = redis.call('HMGET', key, 'v', 'd', 'x')
if not stored[1] then return 0 end

enter_indexes(stored[3], {})
redis.call('DEL', key)
if stored[2] and stored[2] ~= '' then drop_reference(stored[2]) end
if ARGV[2] ~= '' then
  local copy = redis.call('HMGET', CHECKPOINT .. ARGV[2], 'd', 'h')
  if copy[1] then
    redis.call('UNLINK', CHECKPOINT .. ARGV[2], CHECKPOINT_ROWS .. ARGV[2])
    drop_reference(copy[1])
    let_go(held_by(copy[2]))
  end
end
return 1
