-- The event log: entry ids are the event's own number, so a number can neither repeat nor go back.

local function append_events(id, seq, first, last)
  local key = EVENTS .. id
  for at = first, last do
    seq = seq + 1
    redis.call('XADD', key, string.format('%d-0', seq), 'e', ARGV[at])
  end
  return string.format('%d', seq)
end
