-- Bring a queue to what a run's record says of it, unless something newer was brought before; wake who waits for work.
-- KEYS  as lanes.lua
-- ARGV  1 run id    2 revision    3 'queue' | 'hold' | 'leave'    4 order    5 lane    6 limit of its agent or ''
--       7 how long a permit is trusted, in ms    8 pub/sub channel
-- RETURNS {'OK'} | {'OLD'}
local run_id, rev, want, order, lane = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local entry_rev = entry_of(run_id)
local holder_rev = holder_of(run_id)
local woken = false
if want == 'queue' then
  if entry_rev and entry_rev >= rev then return {'OLD'} end
  if holder_rev and holder_rev < rev then woken = return_permit(run_id) end
  if entry_rev then woken = drop_entry(run_id) or woken end
  redis.call('HSETNX', LIMITS, string.match(lane, '^%S+'), ARGV[6])
  redis.call('HSET', ENTRIES, run_id, string.format('%.0f ', rev) .. order .. ' ' .. lane)
  list_entry(order, lane)
  woken = true
else
  -- What is older than an entry comes late: the entry stays, and whoever reserves it asks the record.
  if entry_rev and entry_rev < rev then woken = drop_entry(run_id) end
  if want == 'hold' then
    if not holder_rev then
      take_permit(run_id, rev, lane, now_ms() + tonumber(ARGV[7]))
    elseif holder_rev <= rev then
      redis.call('HSET', HOLDERS, run_id, string.format('%.0f ', rev) .. lane)
      redis.call('ZADD', PERMITS, now_ms() + tonumber(ARGV[7]), run_id)
    end
  elseif holder_rev and holder_rev <= rev then
    woken = return_permit(run_id) or woken
  end
end
if woken then redis.call('SPUBLISH', ARGV[8], '1') end
return {'OK'}
