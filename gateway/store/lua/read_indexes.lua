-- Read the same stretch of several indexes at one moment, newest first, and the runs that are between two of them.
-- KEYS  1 runs in change    2 every run, by creation time    3.. index zsets, by creation time
-- ARGV  1 newest creation time, as ZRANGE takes it    2 most entries of each index    3 '1' to read runs in change
--       4 most runs in change
-- RETURNS {'OK', [run id, created_us, ...] of runs in change, [run id, created_us, ...] of each index}
--       | {'CROWDED'}  more runs are in change than may be read
local between = {}
if ARGV[3] == '1' then
  local members = redis.call('ZRANGE', KEYS[1], 0, ARGV[4])
  if #members > tonumber(ARGV[4]) then return {'CROWDED'} end
  for _, member in ipairs(members) do
    local run_id = string.match(member, '^(%S+)')
    local created = redis.call('ZSCORE', KEYS[2], run_id)
    if created then
      between[#between + 1] = run_id
      between[#between + 1] = created
    end
  end
end
local out = {'OK', between}
for i = 3, #KEYS do
  out[#out + 1] = redis.call('ZRANGE', KEYS[i], ARGV[1], '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
end
return out
