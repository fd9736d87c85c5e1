-- Append events that change no state to runs that somebody holds: the door's short way, under the same guards.
-- Appends of many runs share a call, as far as one server has them all; each is judged and answered by itself.
-- No idempotency key is recognised. Numbers stay the texts that they are kept as: turning one into the other is what a
-- script pays for, as are arguments: they come in one.
-- KEYS  1 record hash    2 log stream    3 writer positions hash, where a writer is named; then those of the next append
-- ARGV  1 as MessagePack: most events in a log, most bytes of a notification, most writers of a run, appends; each is
--       1 pub/sub channel    2 tenant    3 permitted statuses as ',a,b,'    4 expected head seq or ''
--       5 attempt or ''    6 lease token or ''    7 time of the events, in Unix ms, a text
--       8 whether an event says something to whoever watches    9 the tag of each event, a text
--       10 '' or a writer, then 11 its first number    12 its last number    13 body fingerprint
--       then the bytes of each event, of one append after the other, after {"seq":N,"attempt":A,
-- RETURNS one text for each append, parted by spaces, or the store's error:
--       OK | DUPLICATE first_seq last_seq status rev attempt head_tag holder_seq cancel
--       pause input events that its webhooks want
--       | MISSING | GAP expected | STALE expected | MISMATCH | WRITERS | FENCED attempt status | STATUS status
--       | SEQ head_seq | FULL head_seq | EARLY time of the last event
local most_events, most_bytes, most_writers, appends = unpack(cmsgpack.unpack(ARGV[1]))

local function reply(r, word, first, last, head_tag, seen)
  return word .. ' ' .. first .. ' ' .. last .. ' ' .. r[2] .. ' ' .. r[3] .. ' ' .. r[4] .. ' ' .. head_tag
    .. ' ' .. seen .. ' ' .. (r[9] or '0') .. ' ' .. (r[10] or '0') .. ' ' .. (r[11] or '0') .. ' ' .. (r[14] or '')
end

local function append(asked, record, log, writers, at)
  local channel, tenant, statuses, expected, named, lease, now_ms, speaks, tags, writer = unpack(asked, 1, 10)
  local r = redis.call('HMGET', record, 'tenant', 'status', 'rev', 'attempt', 'head_seq', 'head_tag', 'held', 'lease',
    'm:cancel', 'm:pause', 'm:input', 'updated_ms', 'output_ms', 'hooked', 'holder_seq')
  local status, attempt, head, head_tag = r[2], r[4], r[5], r[6]
  if r[1] ~= tenant then return 'MISSING' end
  if writer ~= '' then
    local word, one, two = recognise(writers, writer, asked[11], asked[12], asked[13],
      named ~= '' and tonumber(named), tonumber(attempt), status, most_writers)
    -- Who repeats an append may have missed what its first answer told.
    if word == 'DUPLICATE' then
      return reply(r, word, string.format('%d', one), string.format('%d', two), head_tag, '0')
    end
    if word then return word .. (one and ' ' .. string.format('%d', one) or '') .. (two and ' ' .. two or '') end
  end
  if named ~= '' and named ~= attempt then return 'FENCED ' .. attempt .. ' ' .. status end
  -- A run that is never leased has no such field, one that is not leased now an empty one: both take no lease.
  if (r[8] or '') ~= lease then return 'FENCED ' .. attempt .. ' ' .. status end
  -- In a direct run that was restarted, neither lease nor position tells the old writer from the new one.
  if not r[8] and named == '' and writer == '' and attempt ~= '1' then return 'FENCED ' .. attempt .. ' ' .. status end
  if r[7] ~= '1' or not string.find(statuses, ',' .. status .. ',', 1, true) then return 'STATUS ' .. status end
  if expected ~= '' and expected ~= head then return 'SEQ ' .. head end
  local count, seq = #tags, tonumber(head)
  if seq + count > most_events then return 'FULL ' .. head end
  -- Time in a log never goes back; another process's clock may be a little ahead. Both have thirteen digits.
  if now_ms < r[12] then return 'EARLY ' .. r[12] end

  local header, lines, bytes, first, before_tag = {}, {}, 0, nil, head_tag
  for i = 1, count do
    head = string.format('%d', seq + i)
    first = first or head
    head_tag = tags[i]
    local line = '{"seq":' .. head .. ',"attempt":' .. attempt .. ',' .. ARGV[at + i]
    redis.call('XADD', log, head .. '-' .. head_tag, 'e', line)
    header[i] = head_tag .. ' ' .. #line
    lines[i] = line
    bytes = bytes + #line
  end

  if speaks and (r[13] or '0') == '0' then
    redis.call('HSET', record, 'head_seq', head, 'head_tag', head_tag, 'updated_ms', now_ms, 'beat_ms', now_ms,
      'holder_seq', head, 'output_ms', now_ms)
  else
    redis.call('HSET', record, 'head_seq', head, 'head_tag', head_tag, 'updated_ms', now_ms, 'beat_ms', now_ms,
      'holder_seq', head)
  end
  if bytes <= most_bytes then
    redis.call('SPUBLISH', channel, first .. ' ' .. status .. ' ' .. before_tag .. ' ' .. table.concat(header, ' ')
      .. '\n' .. table.concat(lines))
  else
    redis.call('SPUBLISH', channel, head .. ' ' .. status .. ' 0 ' .. head_tag .. ' 0\n')
  end
  if writer ~= '' then
    redis.call('HSET', writers, writer, attempt .. ' ' .. string.format('%d', asked[12]) .. ' ' .. first .. ' ' .. head
      .. ' ' .. asked[13])
  end
  return reply(r, 'OK', first, head, head_tag, r[15] or '0')
end

local answers, key, at = {}, 1, 1
for i = 1, #appends do
  local asked = appends[i]
  local writers = asked[10] ~= '' and KEYS[key + 2]
  -- A record that is none must not take the others' appends with it.
  local done, told = pcall(append, asked, KEYS[key], KEYS[key + 1], writers, at)
  if not done then
    local problem = type(told) == 'table' and told.err or tostring(told)
    told = redis.error_reply(problem)
    -- A server that has become a replica says so to all.
    if string.find(problem, '^READONLY') then return told end
  end
  answers[i] = told
  key, at = key + (writers and 3 or 2), at + #asked[9]
end
return answers
