-- The event log: entry ids are the event's own number, so a number can neither repeat nor go back.
-- What one commit appends is one entry of LOG, which names it without the bodies. That entry's id
-- is its time and its number, one more than the last: so what was trimmed, or lost with a server
-- that lost its last writes, shows as a jump.

local function append_events(id, seq, bodies, entries_max)
  if #bodies == 0 then return string.format('%d', seq) end
  local key = EVENTS .. id
  for at = 1, #bodies do
    redis.call('XADD', key, string.format('%d-0', seq + at), 'e', bodies[at])
  end
  local last = redis.call('XREVRANGE', LOG, '+', '-', 'COUNT', 1)[1]
  local last_ms, number = (last and last[1] or '0-0'):match('(%d+)-(%d+)')
  local entry = string.format('%d-%d', math.max(now_ms(), tonumber(last_ms)), number + 1)
  redis.call('XADD', LOG, 'MAXLEN', '~', entries_max, entry, 'x', id, 'f', seq + 1, 'n', #bodies)
  return string.format('%d', seq + #bodies)
end
