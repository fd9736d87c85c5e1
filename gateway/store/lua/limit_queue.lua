-- Set how many runs of an agent may be held at once, and give lanes their turn that now have room.
-- KEYS  as lanes.lua
-- ARGV  1 constraint    2 most permits, '' for no limit    3 pub/sub channel
-- RETURNS {'OK', '1' when there may be more lanes to wake, else '0'}
local LANES_AT_ONCE = 500
redis.call('HSET', LIMITS, ARGV[1], ARGV[2])
local woken = 0
while woken < LANES_AT_ONCE and wake(ARGV[1]) do woken = woken + 1 end
if woken > 0 then redis.call('SPUBLISH', ARGV[3], '1') end
return {'OK', woken == LANES_AT_ONCE and '1' or '0'}
