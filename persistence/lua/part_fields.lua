-- Hashes from flat lists of arguments. unpack is bounded by Lua's stack, so long lists go in parts.

local function set_fields(key, first, last)
  for from = first, last, 4000 do
    redis.call('HSET', key, unpack(ARGV, from, math.min(from + 3999, last)))
  end
end
