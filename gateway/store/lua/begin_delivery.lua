-- Take one of a run's webhooks to deliver through it, alone for a while.
-- Its state is a text: cursor tries due_ms busy_until_ms holder knocked state
-- KEYS  1 record hash    2 webhook states hash
-- ARGV  1 webhook id    2 token of the holder    3 how long to hold, in ms    4 state in which it delivers
-- RETURNS {'OK', cursor, tries} | {'HELD', until_ms} | {'LATER', due_ms} | {'STATUS', state} | {'MISSING'}
local head = tonumber(redis.call('HGET', KEYS[1], 'head_seq') or -1)
if head < 0 then return {'MISSING'} end
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local cursor, tries, due, busy, holder, knocked, state = 0, 0, 0, 0, '-', '0', ARGV[4]
local known = redis.call('HGET', KEYS[2], ARGV[1])
if known then
  cursor, tries, due, busy, holder, knocked, state = string.match(known, '^(%d+) (%d+) (%d+) (%d+) (%S+) (%d) (%S+)$')
  cursor, tries, due, busy = tonumber(cursor), tonumber(tries), tonumber(due), tonumber(busy)
end
if state ~= ARGV[4] then return {'STATUS', state} end
local function keep()
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f %.0f %.0f %.0f ', cursor, tries, due, busy) .. holder .. ' '
    .. knocked .. ' ' .. state)
end
if busy > now_ms then
  -- Whoever holds it looks at the log once more before it lets go.
  knocked = '1'
  keep()
  return {'HELD', busy}
end
if due > now_ms then return {'LATER', due} end
-- Beyond the head is what a store that came back older has lost.
if cursor > head then cursor, tries = head, 0 end
due, busy, holder, knocked = 0, now_ms + tonumber(ARGV[3]), ARGV[2], '0'
keep()
return {'OK', cursor, tries}
