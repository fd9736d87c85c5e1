-- Write a file's record and enter it in its tenant's indexes, unless it was deleted lately or another is there.
-- KEYS  1 record    2 mark of its deletion    3.. index zsets, by name
-- ARGV  1 file id    2 record as JSON    3 the record, as JSON, that it takes the place of, '' for none
-- RETURNS {'NEW'} | {'HELD', record}  another is there; nothing was written
--       | {'MISSING'}  it was deleted, or there is none to take the place of
if redis.call('EXISTS', KEYS[2]) == 1 then return {'MISSING'} end
local known = redis.call('GET', KEYS[1])
if known and known ~= ARGV[2] and known ~= ARGV[3] then return {'HELD', known} end
if not known and ARGV[3] ~= '' then return {'MISSING'} end
redis.call('SET', KEYS[1], ARGV[2])
for i = 3, #KEYS do redis.call('ZADD', KEYS[i], 0, ARGV[1]) end
return {'NEW'}
