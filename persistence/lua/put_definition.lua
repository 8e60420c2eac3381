-- digest, body, lifetime in seconds while nothing refers to it.
local key = DEFINITION .. ARGV[1]
redis.call('HSETNX', key, 'b', ARGV[2])
if redis.call('HSETNX', key, 'n', '0') == 1 or redis.call('HGET', key, 'n') == '0' then
  redis.call('EXPIRE', key, ARGV[3])
end
return 0
