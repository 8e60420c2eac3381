-- The event log: entry ids are the event's own number, so a number can neither repeat nor go back.

local function append_events(id, seq, bodies)
  local key = EVENTS .. id
  for at = 1, #bodies do
    redis.call('XADD', key, string.format('%d-0', seq + at), 'e', bodies[at])
  end
  return string.format('%d', seq + #bodies)
end
