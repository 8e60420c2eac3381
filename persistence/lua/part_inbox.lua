-- The inbox: a stream in order of arrival, and a hash that knows every entry id it ever had.

local function append_entry(id, owner, entry_id, body)
  local at = redis.call('XADD', INBOX .. id, '*', 'i', entry_id, 'b', body)
  redis.call('HSET', SEEN .. id, entry_id, at)
  if owner ~= '' then
    local time = redis.call('TIME')
    redis.call('ZADD', MAIL .. owner, 'NX', time[1] * 1000 + math.floor(time[2] / 1000), id)
  end
end
