-- Put a taken timer to its next time, unless somebody armed it meanwhile.
-- KEYS  1 timer zset
-- ARGV  1 member    2 hidden_until_ms as taken    3 next due in ms, or '' for none
-- RETURNS {'OK'} | {'MOVED'}
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) + 0.5 then return {'MOVED'} end
if ARGV[3] == '' then redis.call('ZREM', KEYS[1], ARGV[1]) else redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1]) end
return {'OK'}
