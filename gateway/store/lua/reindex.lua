-- Move a run between its tenant's status indexes, if this change is newer than the one applied; tell the feed.
-- KEYS  1 applied revisions hash    2 runs in change    3 runs with open questions    4 feed record    5 feed log
--       6.. one zset a status, in the order of ARGV 13..
-- ARGV  1 run id    2 revision    3 status, '' when the run is gone    4 '1' with open questions    5 created_us
--       6 change id or ''    7 feed channel    8 feed tag    9 feed event before the previous status
--       10 feed event after it    11 most feed entries    12 number of statuses    13.. statuses
-- RETURNS {'OK', feed_seq} | {'OLD'}
local run_id, rev, status = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local function leave()
  if ARGV[6] ~= '' then redis.call('ZREM', KEYS[2], run_id .. ' ' .. ARGV[6]) end
end
local applied = redis.call('HGET', KEYS[1], run_id)
local known_rev, known = -1, ''
if applied then
  known_rev, known = string.match(applied, '^(%-?%d+) (%S*)$')
  known_rev = tonumber(known_rev)
end
if rev <= known_rev then
  leave()
  return {'OLD'}
end
for i = 1, tonumber(ARGV[12]) do
  if ARGV[12 + i] == status then
    redis.call('ZADD', KEYS[5 + i], ARGV[5], run_id)
  elseif ARGV[12 + i] == known then
    redis.call('ZREM', KEYS[5 + i], run_id)
  end
end
if ARGV[4] == '1' then redis.call('ZADD', KEYS[3], ARGV[5], run_id) else redis.call('ZREM', KEYS[3], run_id) end
if status == '' then
  redis.call('HDEL', KEYS[1], run_id)
else
  redis.call('HSET', KEYS[1], run_id, string.format('%.0f ', rev) .. status)
end
local seq = 0
if known ~= status then
  local head = redis.call('HMGET', KEYS[4], 'head_seq', 'head_tag')
  seq = tonumber(head[1] or 0) + 1
  local text = string.format('%.0f', seq)
  local previous = known == '' and 'null' or '"' .. known .. '"'
  local line = '{"seq":' .. text .. ',' .. ARGV[9] .. previous .. ARGV[10]
  redis.call('XADD', KEYS[5], text .. '-' .. ARGV[8], 'e', line)
  local most = tonumber(ARGV[11])
  local first = math.max(1, seq - most + 1)
  if seq > most then redis.call('XTRIM', KEYS[5], 'MINID', string.format('%.0f', first)) end
  redis.call('HSET', KEYS[4], 'head_seq', text, 'head_tag', ARGV[8], 'first_seq', string.format('%.0f', first),
    'status', 'open')
  redis.call('SPUBLISH', ARGV[7], text .. ' open ' .. (head[2] or '0') .. ' ' .. ARGV[8] .. ' ' .. #line .. '\n' .. line)
end
leave()
return {'OK', seq}
