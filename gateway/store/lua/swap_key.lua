-- Change the record of an API key, if it is still as it was read.
-- KEYS  1 keys hash
-- ARGV  1 digest    2 record JSON it must have    3 record JSON it gets
-- RETURNS {'OK'} | {'MOVED'}
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return {'MOVED'} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return {'OK'}
