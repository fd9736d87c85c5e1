-- Change a schedule, if it is still as it was read; remove it where nothing takes its place.
-- KEYS  1 schedules hash    2 ids zset
-- ARGV  1 id    2 revision it must have, '' when there must be none, '*' for any    3 'revision JSON', '' to remove it
-- RETURNS {'OK'} | {'REVISION'} | {'MISSING'}
local known = redis.call('HGET', KEYS[1], ARGV[1])
if ARGV[2] == '' then
  if known then return {'REVISION'} end
elseif not known then
  return {'MISSING'}
elseif ARGV[2] ~= '*' and string.match(known, '^(%d+) ') ~= ARGV[2] then
  return {'REVISION'}
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  redis.call('ZADD', KEYS[2], 0, ARGV[1])
end
return {'OK'}
