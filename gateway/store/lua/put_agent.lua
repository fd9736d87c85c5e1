-- Store an agent's definition as its next version, unless it is what stands there.
-- KEYS  1 present definitions hash    2 former versions hash    3 ids zset
-- ARGV  1 agent id    2 fingerprint of the definition    3 definition as JSON
-- RETURNS {'OK', version, created_us of the version, created_us of the agent} | {'DUPLICATE', the same}
redis.call('ZADD', KEYS[3], 0, ARGV[1])
local known = redis.call('HGET', KEYS[1], ARGV[1])
local version, first_us = 0, nil
if known then
  local v, at, first, print = string.match(known, '^(%d+) (%d+) (%d+) (%S+) ')
  if print == ARGV[2] then return {'DUPLICATE', tonumber(v), tonumber(at), tonumber(first)} end
  version, first_us = tonumber(v), tonumber(first)
end
local now = redis.call('TIME')
local now_us = tonumber(now[1]) * 1000000 + tonumber(now[2])
version = version + 1
local head = string.format('%.0f %.0f %.0f ', version, now_us, first_us or now_us)
local line = head .. ARGV[2] .. ' ' .. ARGV[3]
redis.call('HSET', KEYS[1], ARGV[1], line)
redis.call('HSET', KEYS[2], ARGV[1] .. string.format(' %.0f', version), line)
return {'OK', version, now_us, first_us or now_us}
