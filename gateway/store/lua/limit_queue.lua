-- Set how many runs of an agent may be held at once, and give lanes their turn that now have room.
-- KEYS  as lanes.lua
-- ARGV  1 constraint    2 most permits, '' for no limit    3 pub/sub channel
-- RETURNS {'OK'}
redis.call('HSET', LIMITS, ARGV[1], ARGV[2])
local woken = false
while wake(ARGV[1]) do woken = true end
if woken then redis.call('PUBLISH', ARGV[3], '1') end
return {'OK'}
