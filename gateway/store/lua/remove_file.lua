-- Remove a file's record, and its entries in its tenant's indexes even where there is no record.
-- KEYS  1 record    2 mark of its deletion    3.. index zsets, by name
-- ARGV  1 file id    2 the only record, as JSON, that is to be removed, '' for any    3 lifetime of the mark in ms, '' for none
-- RETURNS {'OK'} | {'MISSING'} | {'HELD', record}  another is there; nothing was removed
local known = redis.call('GET', KEYS[1])
if known and ARGV[2] ~= '' and known ~= ARGV[2] then return {'HELD', known} end
if ARGV[3] ~= '' then redis.call('SET', KEYS[2], '-', 'PX', ARGV[3]) end
redis.call('DEL', KEYS[1])
for i = 3, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
return {known and 'OK' or 'MISSING'}
