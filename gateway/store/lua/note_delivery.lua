-- Note how far a webhook's holder has come, what became of a try, and whether it holds on.
-- Its state is a text: cursor tries due_ms busy_until_ms holder knocked state
-- KEYS  1 record hash    2 webhook states hash    3 list of tries, newest first
-- ARGV  1 webhook id    2 token of the holder    3 cursor    4 tries of the event after it    5 rest before the next
--       try, in ms    6 state    7 '1' to hold on, '' to let go, '0' whoever asks    8 how long to hold, in ms
--       9 the try as JSON, without its closing brace, or ''    10 most tries kept
-- RETURNS {'OK', next_due_ms or 0} | {'MORE'} somebody asked meanwhile: it is still held | {'FENCED'} | {'MISSING'}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'MISSING'} end
local known = redis.call('HGET', KEYS[2], ARGV[1])
if not known then return {'FENCED'} end
local holder, knocked = string.match(known, '^%d+ %d+ %d+ %d+ (%S+) (%d) %S+$')
if holder ~= ARGV[2] then return {'FENCED'} end
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local rest = tonumber(ARGV[5])
local due = rest > 0 and now_ms + rest or 0
local more = ARGV[7] == '' and rest == 0 and knocked == '1'
local busy = 0
if ARGV[7] == '1' or more then busy = now_ms + tonumber(ARGV[8]) else holder, knocked = '-', '0' end
if more then knocked = '0' end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3] .. ' ' .. ARGV[4] .. string.format(' %.0f %.0f ', due, busy) .. holder .. ' '
  .. knocked .. ' ' .. ARGV[6])
if ARGV[9] ~= '' then
  local line = ARGV[9] .. string.format(',"at_ms":%.0f,"next_retry_ms":', now_ms)
    .. (due > 0 and string.format('%.0f', due) or 'null') .. '}'
  redis.call('LPUSH', KEYS[3], line)
  redis.call('LTRIM', KEYS[3], 0, tonumber(ARGV[10]) - 1)
end
if more then return {'MORE'} end
return {'OK', due}
