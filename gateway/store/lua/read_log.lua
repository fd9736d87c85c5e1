-- Read a run's log from a seq on, together with the head it must agree with.
-- KEYS  1 record hash    2 log stream
-- ARGV  1 first seq, inclusive    2 most entries    3 most bytes after the first entry, which verifies a place
-- RETURNS {'OK', head_seq, head_tag, first_seq, status, rev, log_expired '1' | '0', id, bytes, id, bytes, ...}
--       | {'MISSING'}
local r = redis.call('HMGET', KEYS[1], 'head_seq', 'head_tag', 'first_seq', 'status', 'rev', 'log_expired')
if not r[1] then return {'MISSING'} end
local out = {'OK', tonumber(r[1]), r[2], tonumber(r[3] or 1), r[4], tonumber(r[5] or 0), r[6] or '0'}
local from, entries, bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local start, first = string.format('%.0f', from), true
while entries > 0 and bytes > 0 and from <= out[2] do
  local batch = redis.call('XRANGE', KEYS[2], start, '+', 'COUNT', math.min(entries, 64))
  if #batch == 0 then break end
  for _, entry in ipairs(batch) do
    out[#out + 1] = entry[1]
    out[#out + 1] = entry[2][2]
    entries = entries - 1
    if not first then bytes = bytes - #entry[2][2] end
    first = false
    start = '(' .. entry[1]
    if bytes <= 0 then break end
  end
end
return out
