-- Reserve a new run's id and creation time, and enter it in its tenant's indexes before it exists.
-- KEYS  1 idempotency entry    2 last creation time    3 runs in change    4.. index zsets, by creation time
-- ARGV  1 run id    2 body fingerprint    3 lifetime of the idempotency entry in ms, '' for none    4 change id
-- RETURNS {'NEW', run_id, created_us} | {'MISMATCH'}
--       | {'HELD', run_id, created_us}  another id is reserved under the key; nothing was entered in any index
local now = redis.call('TIME')
local now_us = tonumber(now[1]) * 1000000 + tonumber(now[2])
local run_id, created = ARGV[1], nil
if ARGV[3] ~= '' then
  local known = redis.call('GET', KEYS[1])
  if known then
    local holder, at, print = string.match(known, '^(%S+) (%d+) (.*)$')
    if print ~= ARGV[2] then return {'MISMATCH'} end
    created = tonumber(at)
    if holder ~= run_id then return {'HELD', holder, created} end
  end
end
if not created then
  created = math.max(now_us, tonumber(redis.call('GET', KEYS[2]) or 0) + 1)
  redis.call('SET', KEYS[2], string.format('%.0f', created))
  if ARGV[3] ~= '' then
    redis.call('SET', KEYS[1], run_id .. string.format(' %.0f ', created) .. ARGV[2], 'PX', ARGV[3])
  end
end
for i = 4, #KEYS do redis.call('ZADD', KEYS[i], string.format('%.0f', created), run_id) end
redis.call('ZADD', KEYS[3], math.floor(now_us / 1000), run_id .. ' ' .. ARGV[4])
return {'NEW', run_id, created}
