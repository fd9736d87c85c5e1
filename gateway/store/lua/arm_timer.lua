-- Have a member looked at at a time or earlier.
-- KEYS  1 timer zset
-- ARGV  1 member    2 when, in ms
-- RETURNS {'OK'}
local score, due = redis.call('ZSCORE', KEYS[1], ARGV[1]), tonumber(ARGV[2])
if score then
  local known = tonumber(score)
  if known % 1 ~= 0 then
    -- Hidden: whoever took it may have looked before this. Moved, it is not put away, and shows again.
    due = math.min(due, math.floor(known) - 1)
  elseif known <= due then
    return {'OK'}
  end
end
redis.call('ZADD', KEYS[1], due, ARGV[1])
return {'OK'}
