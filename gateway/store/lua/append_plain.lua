-- Append events that change no state to a run that somebody holds: the door's short way, under the same guards.
-- No idempotency key is recognised. Numbers stay the texts that they are kept as: turning one into the other is what a
-- script pays for.
-- KEYS  1 record hash    2 log stream    3 writer positions hash, where a writer is named
-- ARGV  1 pub/sub channel    2 tenant    3 permitted statuses as ',a,b,'    4 expected head seq or ''
--       5 attempt or ''    6 lease token or ''    7 most events in a log    8 most bytes of a notification
--       9 time of the events, in Unix ms    10 '1' when an event says something to whoever watches
--       11 '' or a writer, then 12 its first number    13 its last number    14 body fingerprint    15 most writers
--       then for each event its tag and its bytes after {"seq":N,"attempt":A,
-- RETURNS one text, parted by spaces: OK | DUPLICATE first_seq last_seq status rev attempt head_tag holder_seq cancel
--       pause input events that its webhooks want
--       | MISSING | GAP expected | STALE expected | MISMATCH | WRITERS | FENCED attempt status | STATUS status
--       | SEQ head_seq | FULL head_seq | EARLY time of the last event
local record, log = KEYS[1], KEYS[2]
local r = redis.call('HMGET', record, 'tenant', 'status', 'rev', 'attempt', 'head_seq', 'head_tag', 'held', 'lease',
  'm:cancel', 'm:pause', 'm:input', 'updated_ms', 'output_ms', 'hooked', 'holder_seq')
local status, attempt, head, head_tag, now_ms = r[2], r[4], r[5], r[6], ARGV[9]

local function reply(word, first, last, seen)
  return word .. ' ' .. first .. ' ' .. last .. ' ' .. status .. ' ' .. r[3] .. ' ' .. attempt .. ' ' .. head_tag .. ' '
    .. seen .. ' ' .. (r[9] or '0') .. ' ' .. (r[10] or '0') .. ' ' .. (r[11] or '0') .. ' ' .. (r[14] or '')
end

if r[1] ~= ARGV[2] then return 'MISSING' end
local writer, at = ARGV[11], 11
if writer ~= '' then
  at = 15
  local word, one, two = recognise(KEYS[3], writer, tonumber(ARGV[12]), tonumber(ARGV[13]), ARGV[14],
    ARGV[5] ~= '' and tonumber(ARGV[5]), tonumber(attempt), status, tonumber(ARGV[15]))
  -- Who repeats an append may have missed what its first answer told.
  if word == 'DUPLICATE' then return reply(word, string.format('%d', one), string.format('%d', two), '0') end
  if word then return word .. (one and ' ' .. string.format('%d', one) or '') .. (two and ' ' .. two or '') end
end
if ARGV[5] ~= '' and ARGV[5] ~= attempt then return 'FENCED ' .. attempt .. ' ' .. status end
-- A run that is never leased has no such field, one that is not leased now an empty one: both take no lease.
if (r[8] or '') ~= ARGV[6] then return 'FENCED ' .. attempt .. ' ' .. status end
-- In a direct run that was restarted, neither lease nor position tells the old writer from the new one.
if not r[8] and ARGV[5] == '' and writer == '' and attempt ~= '1' then return 'FENCED ' .. attempt .. ' ' .. status end
if r[7] ~= '1' or not string.find(ARGV[3], ',' .. status .. ',', 1, true) then return 'STATUS ' .. status end
if ARGV[4] ~= '' and ARGV[4] ~= head then return 'SEQ ' .. head end
local count, seq = (#ARGV - at) / 2, tonumber(head)
if seq + count > tonumber(ARGV[7]) then return 'FULL ' .. head end
-- Time in a log never goes back; another process's clock may be a little ahead.
if tonumber(now_ms) < tonumber(r[12]) then return 'EARLY ' .. r[12] end

local header, lines, bytes, first, before_tag = {}, {}, 0, nil, head_tag
for i = 1, count do
  head = string.format('%d', seq + i)
  first = first or head
  head_tag = ARGV[at - 1 + 2 * i]
  local line = '{"seq":' .. head .. ',"attempt":' .. attempt .. ',' .. ARGV[at + 2 * i]
  redis.call('XADD', log, head .. '-' .. head_tag, 'e', line)
  header[i] = head_tag .. ' ' .. #line
  lines[i] = line
  bytes = bytes + #line
end

if ARGV[10] == '1' and (r[13] or '0') == '0' then
  redis.call('HSET', record, 'head_seq', head, 'head_tag', head_tag, 'updated_ms', now_ms, 'beat_ms', now_ms,
    'holder_seq', head, 'output_ms', now_ms)
else
  redis.call('HSET', record, 'head_seq', head, 'head_tag', head_tag, 'updated_ms', now_ms, 'beat_ms', now_ms,
    'holder_seq', head)
end
if bytes <= tonumber(ARGV[8]) then
  redis.call('SPUBLISH', ARGV[1], first .. ' ' .. status .. ' ' .. before_tag .. ' ' .. table.concat(header, ' ') .. '\n'
    .. table.concat(lines))
else
  redis.call('SPUBLISH', ARGV[1], head .. ' ' .. status .. ' 0 ' .. head_tag .. ' 0\n')
end
if writer ~= '' then
  redis.call('HSET', KEYS[3], writer, attempt .. ' ' .. ARGV[13] .. ' ' .. first .. ' ' .. head .. ' ' .. ARGV[14])
end
return reply('OK', first, head, r[15] or '0')
