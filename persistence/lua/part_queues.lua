-- Executions without an owner wait in one of two queues. Those that were there when an owner died,
-- and have not shown since that it was not their doing, are suspects: each gets an owner that has
-- nothing else, and that owner nothing else while it is under suspicion (ISOLATED). What no owner
-- that is there can read is in neither of them until one comes or goes (ASIDE).

local function leave_queue(id)
  redis.call('ZREM', WAITING, id)
  redis.call('ZREM', SUSPECTS, id)
  redis.call('ZREM', ASIDE, id)
end

-- Crashes are forgotten `kept_ms` after the last one: whoever lives for months has met a few.
local function count_crash(id, kept_ms)
  local key, now = EXECUTION .. id, now_ms()
  local last = tonumber(redis.call('HGET', key, 't') or now)
  local lately = now - last > tonumber(kept_ms) and 0 or tonumber(redis.call('HGET', key, 'C') or 0)
  redis.call('HINCRBY', key, 'c', 1)
  redis.call('HSET', key, 'C', lately + 1, 't', string.format('%d', now))
end

local function is_suspect(id)
  return tonumber(redis.call('HGET', EXECUTION .. id, 'c') or 0) > 0
end

-- Those that have met fewer crashes lately come first, then the oldest. A score holds whole numbers
-- up to 2^53 only: 1,000 crashes, and as many executions as there will ever be.
local function turn_of_suspect(id, number)
  local lately = math.min(tonumber(redis.call('HGET', EXECUTION .. id, 'C') or 0), 1000)
  return string.format('%d', lately * 1e12 + number)
end

local function enter_queue(id, number)
  if is_suspect(id) then
    redis.call('ZADD', SUSPECTS, turn_of_suspect(id, number), id)
  else
    redis.call('ZADD', WAITING, number, id)
  end
end

local function is_isolated(id, owner)
  return redis.call('HGET', ISOLATED, owner) == id
end

-- Whoever comes may be of another version than those that could not read them, and whoever goes may
-- have been the one who could not.
local function take_from_aside()
  local aside = redis.call('ZRANGE', ASIDE, 0, 999, 'WITHSCORES')
  for at = 1, #aside, 2 do
    redis.call('ZREM', ASIDE, aside[at])
    enter_queue(aside[at], aside[at + 1])
  end
end
