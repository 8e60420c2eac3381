-- owner, owners_max. Answers the state, or nil if there is nothing to take or it may not.
local owner = ARGV[1]
if not is_on_roster(owner) then return nil end
if redis.call('HEXISTS', ISOLATED, owner) == 1 then return nil end
local is_empty = redis.call('ZCARD', OWNED .. owner) == 0
if is_empty then
  local suspect = redis.call('ZRANGE', SUSPECTS, 0, 0)[1]
  if suspect then
    local state = claim(suspect, owner)
    redis.call('HSET', ISOLATED, owner, suspect)
    return state
  end
end
local oldest = redis.call('ZRANGE', WAITING, 0, 0)[1]
if not oldest then return nil end
local now, owners_max = now_ms(), tonumber(ARGV[2])
if is_empty and is_reserved(now, owners_max) then return nil end
if not is_empty and live_owners(now) < owners_max then return nil end
return claim(oldest, owner)
