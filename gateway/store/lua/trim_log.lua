-- Remove the older part of an ended run's log, or all of it when its retention is over.
-- KEYS  1 record hash    2 log stream    3 writer positions hash
-- ARGV  1 tenant    2 permitted statuses as ',a,b,'    3 revision or ''    4 last seq to remove, or 'all'
-- RETURNS {'OK', first_seq} | {'MISSING'} | {'STATUS', status} | {'REVISION', rev}
local r = redis.call('HMGET', KEYS[1], 'tenant', 'status', 'rev', 'head_seq', 'first_seq')
if not r[1] or r[1] ~= ARGV[1] then return {'MISSING'} end
if ARGV[3] ~= '' and ARGV[3] ~= r[3] then return {'REVISION', tonumber(r[3])} end
if not string.find(ARGV[2], ',' .. r[2] .. ',', 1, true) then return {'STATUS', r[2]} end
local head = tonumber(r[4])
if ARGV[4] == 'all' then
  redis.call('UNLINK', KEYS[2], KEYS[3])
  redis.call('HSET', KEYS[1], 'log_expired', '1', 'first_seq', string.format('%.0f', head + 1))
  return {'OK', head + 1}
end
local first = math.min(tonumber(ARGV[4]), head) + 1
if first <= tonumber(r[5]) then return {'OK', tonumber(r[5])} end
redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f', first))
redis.call('HSET', KEYS[1], 'first_seq', string.format('%.0f', first))
return {'OK', first}
