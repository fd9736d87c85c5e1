-- Keep what a request under an idempotency key led to, unless another one under it has led to something before.
-- KEYS  1 idempotency entry
-- ARGV  1 the mark of a request under way    2 what it led to; '' frees the key again    3 how long that is kept, in ms
-- RETURNS {'OK'} | {'HELD', what the other one led to}
local known = redis.call('GET', KEYS[1])
if known and known ~= ARGV[1] then return {'HELD', known} end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return {'OK'}
