-- Reserve the runs that are next: hidden for a while, with the permits that they need, in case whoever took them dies.
-- KEYS  as lanes.lua
-- ARGV  1 most runs    2 how long to hide them, in ms    3 ids of the agents whose runs will do as ',a,b,', '' for any
-- RETURNS {'OK', '1' when there may be more to look at, s, run id of a permit to ask after, ... s of them, reserved run id, ...}
local LOOKS = 256
local most, hidden_until = tonumber(ARGV[1]), now_ms() + tonumber(ARGV[2])
local now = now_ms()
for _, run_id in ipairs(redis.call('ZRANGE', HIDDEN, '-inf', now, 'BYSCORE', 'LIMIT', 0, 100)) do
  redis.call('ZREM', HIDDEN, run_id)
  if string.sub(run_id, 1, 1) == '!' then
    wake(string.sub(run_id, 2))
  else
    local rev, order, lane = entry_of(run_id)
    if rev then
      if holder_of(run_id) == rev then return_permit(run_id) end
      list_entry(order, lane)
    end
  end
end
local out = {'OK', '0', 0}
for _, run_id in ipairs(redis.call('ZRANGE', PERMITS, '-inf', now, 'BYSCORE', 'LIMIT', 0, 20)) do
  redis.call('ZADD', PERMITS, hidden_until, run_id)
  out[#out + 1] = run_id
end
out[3] = #out - 3
-- The lane that is next of all, or of those of certain agents: each agent's own first is found at once.
local function next_ready()
  if ARGV[3] == '' then return redis.call('ZRANGE', READY, 0, 0)[1] end
  local next
  for agent in string.gmatch(ARGV[3], '[^,]+') do
    local offer = first_with(OFFERS, 'a:' .. agent)
    local member = offer and string.sub(offer, #agent + 4)
    if member and (not next or member < next) then next = member end
  end
  return next
end

local taken = 0
for look = 1, most + LOOKS do
  if taken >= most then break end
  if look == most + LOOKS then out[2] = '1' end
  local first = next_ready()
  if not first then break end
  local order, lane = string.sub(first, 1, ORDER_CHARS), string.sub(first, ORDER_CHARS + 2)
  local _, placed = place(lane)
  if placed == 'R' then
    local run_id = string.sub(order, -RUN_CHARS)
    redis.call('ZREM', LANES, lane .. '|' .. order)
    redis.call('ZADD', HIDDEN, hidden_until, run_id)
    take_permit(run_id, entry_of(run_id), lane, hidden_until)
    place(lane)
    out[#out + 1] = run_id
    taken = taken + 1
  end
end
return out
