-- Take what is due in one timer partition, hiding each timer for a while in case its taker dies.
-- KEYS  1 timer zset
-- ARGV  1 most timers    2 how long to hide them, in ms
-- RETURNS {'OK', now_ms, next_due_ms or -1, hidden_until_ms, member, due_ms, member, due_ms, ...} oldest first
local now = redis.call('TIME')
local now_ms = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local due = redis.call('ZRANGE', KEYS[1], '-inf', now_ms, 'BYSCORE', 'LIMIT', 0, ARGV[1], 'WITHSCORES')
local hidden = now_ms + tonumber(ARGV[2])
local out = {'OK', now_ms, -1, hidden}
for i = 1, #due, 2 do
  -- The half tells a hidden timer from one that was armed for that time.
  redis.call('ZADD', KEYS[1], hidden + 0.5, due[i])
  out[#out + 1] = due[i]
  out[#out + 1] = tonumber(due[i + 1])
end
local next_due = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if #next_due > 0 then out[3] = tonumber(next_due[2]) end
return out
