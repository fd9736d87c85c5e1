-- Free an idempotency key, if it still stands for a run.
-- KEYS  1 idempotency entry
-- ARGV  1 run id
-- RETURNS {'OK'} | {'MISSING'}  it stands for another run, or for none
local known = redis.call('GET', KEYS[1])
if not known or string.match(known, '^(%S+)') ~= ARGV[1] then return {'MISSING'} end
redis.call('DEL', KEYS[1])
return {'OK'}
