-- owner, owners_max. Answers the state, or nil if there is nothing to take or it may not.
local owner = ARGV[1]
local oldest = redis.call('ZRANGE', WAITING, 0, 0)
if #oldest == 0 then return nil end
local lease = redis.call('ZSCORE', LEASES, owner)
if lease and tonumber(lease) == 0 then return nil end
if redis.call('ZCARD', OWNED .. owner) > 0 and live_owners(now_ms()) < tonumber(ARGV[2]) then
  return nil
end
return claim(oldest[1], owner)
