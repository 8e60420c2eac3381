-- Hashes from flat lists. unpack is bounded by Lua's stack, so long lists go in parts.

local function set_fields(key, flat)
  for from = 1, #flat, 4000 do
    redis.call('HSET', key, unpack(flat, from, math.min(from + 3999, #flat)))
  end
end
