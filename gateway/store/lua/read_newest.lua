-- Read the newest entries of a run's log, together with the head that they end at.
-- KEYS  1 record hash    2 log stream
-- ARGV  1 most entries    2 most bytes besides the newest entry
-- RETURNS {'OK', head_seq, head_tag, first_seq, status, rev, log_expired '1' | '0', id, bytes, id, bytes, ...}
--           newest first
--       | {'MISSING'}
local r = redis.call('HMGET', KEYS[1], 'head_seq', 'head_tag', 'first_seq', 'status', 'rev', 'log_expired')
if not r[1] then return {'MISSING'} end
local out = {'OK', tonumber(r[1]), r[2], tonumber(r[3] or 1), r[4], tonumber(r[5] or 0), r[6] or '0'}
local entries, bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local last, newest = '+', true
while entries > 0 do
  local batch = redis.call('XREVRANGE', KEYS[2], last, '-', 'COUNT', math.min(entries, 64))
  if #batch == 0 then return out end
  for _, entry in ipairs(batch) do
    if not newest then bytes = bytes - #entry[2][2] end
    if bytes < 0 then return out end
    newest = false
    out[#out + 1] = entry[1]
    out[#out + 1] = entry[2][2]
    entries = entries - 1
    last = '(' .. entry[1]
  end
end
return out
