-- Append events to a run's log: dedupe, guard, assign seq, store, publish. The one door.
-- A record that does not exist is created when the permitted statuses are 'absent'.
-- KEYS  1 record hash    2 log stream    3 writer positions hash    4 idempotency entry
-- ARGV  1 pub/sub channel    2 tenant    3 permitted statuses as ',a,b,' or 'absent'    4 '1' when the run must be held
--       5 revision or ''    6 expected head seq or ''    7 attempt or ''    8 lease token or ''
--       9 writer or ''    10 its first number    11 its last number    12 body fingerprint
--       13 lifetime of the idempotency entry in ms, '' for none    14 '1' when the holder of the run appends
--       15 most events in a log    16 most writers of a run    17 most bytes of a notification
--       18 index (from 0) of the caller's own first event    19 time of the events, in Unix ms
--       20 '1' when an event says something to whoever watches    21 '1' to let every writer count from 1 again
--       22 p, then p pairs field, value to set       then i, i pairs field, increment
--       then m, m pairs field, index (from 0) of the event whose seq it takes
--       then n, n pairs field, value to set that is no change of state: the revision stays
--       then for each event its tag and its bytes after {"seq":N,"attempt":A,
-- RETURNS {'OK' | 'DUPLICATE', first_seq, last_seq, status, rev, attempt, head_tag, holder_seq, cancel, pause, input,
--       events that its webhooks want}
--       | {'MISSING'} | {'EXISTS'} | {'STATUS', status} | {'REVISION', rev} | {'SEQ', head_seq} | {'FENCED', attempt, status}
--       | {'GAP', expected} | {'STALE', expected} | {'MISMATCH'} | {'WRITERS'} | {'FULL', head_seq}
--       | {'EARLY', time of the last event}
local record, log, writers, idem = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local r = redis.call('HMGET', record, 'tenant', 'status', 'rev', 'attempt', 'head_seq', 'head_tag', 'held', 'lease',
  'holder_seq', 'm:cancel', 'm:pause', 'm:input', 'updated_ms', 'output_ms', 'hooked')
local tenant, status, rev, attempt = r[1], r[2], tonumber(r[3] or 0), tonumber(r[4] or 1)
local head, head_tag, held, lease = tonumber(r[5] or 0), r[6] or '0', r[7], r[8]
local permitted, writer, fingerprint = ARGV[3], ARGV[9], ARGV[12]

local function reply(word, first, last)
  -- Who repeats an append may have missed what its first answer told.
  local seen = word == 'OK' and tonumber(r[9] or 0) or 0
  return {word, first, last, status, rev, attempt, head_tag, seen, tonumber(r[10] or 0),
    tonumber(r[11] or 0), tonumber(r[12] or 0), r[15] or ''}
end

if permitted == 'absent' then
  if tenant then return {'EXISTS'} end
elseif not tenant or tenant ~= ARGV[2] then
  return {'MISSING'}
end

-- Dedupe comes before the guards: a repeat is answered as the first time, even when the run has ended since.
local position
if writer ~= '' then
  position = tonumber(ARGV[11])
  local word, one, two = recognise(writers, writer, tonumber(ARGV[10]), position, fingerprint,
    ARGV[7] ~= '' and tonumber(ARGV[7]), attempt, status, tonumber(ARGV[16]))
  if word == 'DUPLICATE' then return reply(word, one, two) end
  if word then return {word, one, two} end
end
if ARGV[13] ~= '' then
  local known = redis.call('GET', idem)
  if known then
    local from, to, print = string.match(known, '^(%d+) (%d+) (.*)$')
    if print ~= fingerprint then return {'MISMATCH'} end
    return reply('DUPLICATE', tonumber(from), tonumber(to))
  end
end

if permitted ~= 'absent' then
  if ARGV[7] ~= '' and tonumber(ARGV[7]) ~= attempt then return {'FENCED', attempt, status} end
  -- A run that is never leased has no such field, one that is not leased now an empty one: both take no lease.
  if ARGV[14] == '1' and (lease or '') ~= ARGV[8] then return {'FENCED', attempt, status} end
  -- In a direct run that was restarted, neither lease nor position tells the old writer from the new one.
  if ARGV[14] == '1' and not lease and attempt > 1 and ARGV[7] == '' and writer == '' then
    return {'FENCED', attempt, status}
  end
  -- Before the status: whoever decided on an older record has to decide anew, not to be refused.
  if ARGV[5] ~= '' and tonumber(ARGV[5]) ~= rev then return {'REVISION', rev} end
  if not string.find(permitted, ',' .. status .. ',', 1, true) then return {'STATUS', status} end
  if ARGV[4] == '1' and held ~= '1' then return {'STATUS', status} end
end
if ARGV[6] ~= '' and tonumber(ARGV[6]) ~= head then return {'SEQ', head} end

local at = 22
local function take_pairs(apply)
  local count = tonumber(ARGV[at])
  for i = 1, count do apply(ARGV[at + 2 * i - 1], ARGV[at + 2 * i]) end
  at = at + 2 * count + 1
end

local changes, increments, marks = {}, {}, {}
take_pairs(function(field, value)
  changes[#changes + 1] = field
  changes[#changes + 1] = value
  if field == 'status' then status = value end
  if field == 'attempt' then attempt = tonumber(value) end
end)
take_pairs(function(field, value) increments[field] = value end)
take_pairs(function(field, index) marks[#marks + 1] = {field, tonumber(index)} end)
local notes = {}
take_pairs(function(field, value)
  notes[#notes + 1] = field
  notes[#notes + 1] = value
end)

local count = (#ARGV - at + 1) / 2
if head + count > tonumber(ARGV[15]) then return {'FULL', head} end
-- Time in a log never goes back; another process's clock may be a little ahead.
if count > 0 and tonumber(ARGV[19]) < tonumber(r[13] or 0) then return {'EARLY', tonumber(r[13])} end

local before, before_tag = head, head_tag
local header, lines, bytes = {}, {}, 0
for i = 0, count - 1 do
  head = head + 1
  head_tag = ARGV[at + 2 * i]
  local line = '{"seq":' .. string.format('%.0f', head) .. ',"attempt":' .. string.format('%.0f', attempt) .. ','
    .. ARGV[at + 2 * i + 1]
  redis.call('XADD', log, string.format('%.0f', head) .. '-' .. head_tag, 'e', line)
  header[#header + 1] = head_tag .. ' ' .. #line
  lines[#lines + 1] = line
  bytes = bytes + #line
end

local now_ms = string.format('%.0f', math.max(tonumber(ARGV[19]), tonumber(r[13] or 0)))
if #changes > 0 then
  rev = rev + 1
  changes[#changes + 1] = 'rev'
  changes[#changes + 1] = rev
end
for _, note in ipairs(notes) do changes[#changes + 1] = note end
if permitted == 'absent' then
  changes[#changes + 1] = 'first_seq'
  changes[#changes + 1] = 1
end
if ARGV[14] == '1' then
  changes[#changes + 1] = 'beat_ms'
  changes[#changes + 1] = now_ms
  if count > 0 then
    changes[#changes + 1] = 'holder_seq'
    changes[#changes + 1] = string.format('%.0f', head)
  end
end
if ARGV[20] == '1' and (r[14] or '0') == '0' then
  changes[#changes + 1] = 'output_ms'
  changes[#changes + 1] = now_ms
end
for _, mark in ipairs(marks) do
  changes[#changes + 1] = 'm:' .. mark[1]
  changes[#changes + 1] = string.format('%.0f', before + 1 + mark[2])
end
redis.call('HSET', record, 'head_seq', string.format('%.0f', head), 'head_tag', head_tag, 'updated_ms', now_ms,
  unpack(changes))
for field, value in pairs(increments) do redis.call('HINCRBY', record, field, value) end

if ARGV[21] == '1' then redis.call('DEL', writers) end

local first = count > 0 and before + 1 + tonumber(ARGV[18]) or 0
local last = count > 0 and head or before
if position then
  redis.call('HSET', writers, writer, string.format('%.0f %.0f %.0f %.0f ', attempt, position, first, last) .. fingerprint)
end
if ARGV[13] ~= '' then
  redis.call('SET', idem, string.format('%.0f %.0f ', first, last) .. fingerprint, 'PX', ARGV[13])
end

if count > 0 then
  local top = string.format('%.0f ', before + 1) .. status .. ' '
  if bytes <= tonumber(ARGV[17]) then
    redis.call('SPUBLISH', ARGV[1], top .. before_tag .. ' ' .. table.concat(header, ' ') .. '\n' .. table.concat(lines))
  else
    redis.call('SPUBLISH', ARGV[1], string.format('%.0f ', head) .. status .. ' 0 ' .. head_tag .. ' 0\n')
  end
end
return reply('OK', first, last)
