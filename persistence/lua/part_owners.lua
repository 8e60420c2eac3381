-- Owners and what they have. An owner's load is the size of its set, so that it cannot drift; only
-- who is on the roster is given anything, so that what it has cannot be forgotten.

-- Whether it is an owner: it has registered, and has not been found dead since.
local function is_on_roster(owner)
  local lease = redis.call('ZSCORE', LEASES, owner)
  return lease and tonumber(lease) > 0
end

local function note_load(owner)
  redis.call('ZADD', OWNERS, redis.call('ZCARD', OWNED .. owner), owner)
end

local function give(id, number, owner)
  redis.call('ZADD', OWNED .. owner, number, id)
  note_load(owner)
end

local function take_from(id, owner)
  if is_isolated(id, owner) then redis.call('HDEL', ISOLATED, owner) end
  redis.call('ZREM', OWNED .. owner, id)
  redis.call('ZREM', MAIL .. owner, id)
  note_load(owner)
end

local function live_owners(now)
  return redis.call('ZCOUNT', LEASES, '(' .. string.format('%d', now), '+inf')
end

-- Whether an owner without load is kept for suspects: because some wait, or because there are as
-- many live owners as there may be without it, not counting those that isolate one. What a death
-- leaves behind then need not wait until another process has started.
local function is_reserved(now, owners_max)
  if redis.call('ZCARD', SUSPECTS) > 0 then return true end
  local beyond = live_owners(now) - redis.call('HLEN', ISOLATED) - owners_max
  return beyond > 0 and redis.call('ZCOUNT', OWNERS, 0, 0) <= beyond
end

-- The least loaded live owner and its load. Owners whose lease has run out are passed over: they
-- are few, and soon taken off the roster. So are those that isolate a suspect, and those that are
-- kept for one.
local function least_loaded(now, reserved)
  local from = 0
  while true do
    local roster = redis.call('ZRANGE', OWNERS, from, from + 15, 'WITHSCORES')
    if #roster == 0 then return nil end
    for at = 1, #roster, 2 do
      local lease = redis.call('ZSCORE', LEASES, roster[at])
      local owner, load = roster[at], tonumber(roster[at + 1])
      local is_free = (load > 0 or not reserved) and redis.call('HEXISTS', ISOLATED, owner) == 0
      if is_free and lease and tonumber(lease) > now then return owner, load end
    end
    from = from + 16
  end
end

local function choose_owner(owners_max, load_max)
  local now = now_ms()
  local owner, load = least_loaded(now, is_reserved(now, owners_max))
  if owner and load == 0 then return owner end
  if owner and load < load_max and live_owners(now) >= owners_max then return owner end
  return ''
end
