-- The inbox: a stream in order of arrival, and a hash that knows every unread entry's id and those
-- that were acknowledged last.

local acknowledged_kept = 1000
local outcomes_below = 900

-- An entry for one epoch has an 'e' before its place: once acknowledged it is forgotten, because
-- whoever left it knows what came of it, or does not ask any more.
local function append_entry(id, owner, entry_id, body, mark)
  local at = redis.call('XADD', INBOX .. id, '*', 'i', entry_id, 'b', body)
  redis.call('HSET', SEEN .. id, entry_id, (mark or '') .. at)
  if owner ~= '' then redis.call('ZADD', MAIL .. owner, 'NX', now_ms(), id) end
end

local function acknowledge(id, done)
  for at = 1, #done do
    local entry = redis.call('HGET', SEEN .. id, done[at])
    if entry and string.sub(entry, 1, 1) == 'e' then
      redis.call('XDEL', INBOX .. id, string.sub(entry, 2))
      redis.call('HDEL', SEEN .. id, done[at])
    elseif entry and entry ~= '' then
      redis.call('XDEL', INBOX .. id, entry)
      redis.call('HSET', SEEN .. id, done[at], '')
      redis.call('RPUSH', ACKNOWLEDGED .. id, done[at])
    end
  end
  for _ = acknowledged_kept + 1, redis.call('LLEN', ACKNOWLEDGED .. id) do
    redis.call('HDEL', SEEN .. id, redis.call('LPOP', ACKNOWLEDGED .. id))
  end
end
