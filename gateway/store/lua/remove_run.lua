-- Remove an ended run altogether.
-- KEYS  1 record hash    2 log stream    3 writer positions hash    4 webhook states hash    5 list of tries
-- ARGV  1 tenant    2 permitted statuses as ',a,b,'    3 revision or ''
-- RETURNS {'OK'} | {'MISSING'} | {'STATUS', status} | {'REVISION', rev}
local r = redis.call('HMGET', KEYS[1], 'tenant', 'status', 'rev')
if not r[1] or r[1] ~= ARGV[1] then return {'MISSING'} end
if ARGV[3] ~= '' and ARGV[3] ~= r[3] then return {'REVISION', tonumber(r[3])} end
if not string.find(ARGV[2], ',' .. r[2] .. ',', 1, true) then return {'STATUS', r[2]} end
-- A long log takes a while to free; that happens beside other commands.
redis.call('UNLINK', unpack(KEYS))
return {'OK'}
