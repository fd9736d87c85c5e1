-- What every verb of a queue works with; it stands before each of them.
-- KEYS  1 entries hash: run id -> 'rev order lane'     2 lanes zset, by name: 'lane|order' of each waiting run
--       3 places hash: lane -> 'R' or 'P' and its member    4 ready zset, by name: 'order lane' of lanes' first runs
--       5 parked zset, by name: 'constraint|order lane'     6 hidden zset: reserved runs, by when they show again, and at 0 '!constraint' to offer room again
--       7 permits zset: run id, by when to ask whether it still holds    8 holders hash: run id -> 'rev lane'
--       9 used hash: constraint -> permits taken            10 limits hash: constraint -> most permits, '' for no limit
--       11 offers zset, by name: 'agent constraint|order lane' of all that is ready, for claims of certain agents
-- A lane is what runs share that are subject to the same limits: '<agent constraint> <key constraint or ->'.
-- Only the first run of a lane is ready, and only where no limit of it is reached: a claim never walks a backlog.
local ENTRIES, LANES, PLACES, READY, PARKED = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local HIDDEN, PERMITS, HOLDERS, USED, LIMITS, OFFERS = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local ORDER_CHARS, RUN_CHARS, WAKE_TRIES = 46, 26, 64

local function now_ms()
  local now = redis.call('TIME')
  return tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
end

local function constraints(lane)
  local agent, key = string.match(lane, '^(%S+) (%S+)$')
  if key == '-' then return {agent} end
  return {agent, key}
end

local function is_full(constraint)
  local limit = redis.call('HGET', LIMITS, constraint)
  -- A concurrency key lets one run at a time through; an agent as many as there are, unless it says otherwise.
  if not limit then limit = string.sub(constraint, 1, 2) == 'k:' and '1' or '' end
  return limit ~= '' and tonumber(redis.call('HGET', USED, constraint) or 0) >= tonumber(limit)
end

local function first_with(zset, prefix)
  -- '}' follows '|', which no name holds.
  return redis.call('ZRANGE', zset, '[' .. prefix .. '|', '(' .. prefix .. '}', 'BYLEX', 'LIMIT', 0, 1)[1]
end

local function offer_of(lane, member)
  return string.match(lane, '^%S+') .. '|' .. member
end

-- Put a lane where it belongs now; returns where it was and is: 'R', 'P' or nil.
local function place(lane)
  local before = redis.call('HGET', PLACES, lane)
  if before then
    if string.sub(before, 1, 1) == 'R' then
      redis.call('ZREM', READY, string.sub(before, 2))
      redis.call('ZREM', OFFERS, offer_of(lane, string.sub(before, 2)))
    else
      redis.call('ZREM', PARKED, string.sub(before, 2))
    end
    redis.call('HDEL', PLACES, lane)
    before = string.sub(before, 1, 1)
  else
    before = nil
  end
  local first = first_with(LANES, lane)
  if not first then return before, nil end
  local member = string.sub(first, #lane + 2) .. ' ' .. lane
  for _, constraint in ipairs(constraints(lane)) do
    if is_full(constraint) then
      redis.call('ZADD', PARKED, 0, constraint .. '|' .. member)
      redis.call('HSET', PLACES, lane, 'P' .. constraint .. '|' .. member)
      return before, 'P'
    end
  end
  redis.call('ZADD', READY, 0, member)
  redis.call('ZADD', OFFERS, 0, offer_of(lane, member))
  redis.call('HSET', PLACES, lane, 'R' .. member)
  return before, 'R'
end

-- Offer room under a constraint to the first lane that waits for it and can use it; returns whether one can.
local function wake(constraint)
  for _ = 1, WAKE_TRIES do
    if is_full(constraint) then return false end
    local parked = first_with(PARKED, constraint)
    if not parked then return false end
    local _, now = place(string.sub(parked, #constraint + 2 + ORDER_CHARS + 1))
    if now == 'R' then return true end
  end
  -- So many wait for something else, too: the next reserve goes on.
  redis.call('ZADD', HIDDEN, 0, '!' .. constraint)
  return false
end

local function wake_others(lane)
  local woken = false
  for _, constraint in ipairs(constraints(lane)) do woken = wake(constraint) or woken end
  return woken
end

local function entry_of(run_id)
  local entry = redis.call('HGET', ENTRIES, run_id)
  if not entry then return nil end
  local rev, order, lane = string.match(entry, '^(%d+) (%S+) (.*)$')
  return tonumber(rev), order, lane
end

local function holder_of(run_id)
  local holder = redis.call('HGET', HOLDERS, run_id)
  if not holder then return nil end
  local rev, lane = string.match(holder, '^(%d+) (.*)$')
  return tonumber(rev), lane
end

local function list_entry(order, lane)
  redis.call('ZADD', LANES, 0, lane .. '|' .. order)
  place(lane)
end

-- Forget an entry; returns whether another lane got its turn.
local function drop_entry(run_id)
  local _, order, lane = entry_of(run_id)
  redis.call('HDEL', ENTRIES, run_id)
  if redis.call('ZREM', HIDDEN, run_id) == 1 then return false end
  redis.call('ZREM', LANES, lane .. '|' .. order)
  local before, now = place(lane)
  -- The turn that it had and did not take goes to whoever waits for the same limits.
  return before == 'R' and now ~= 'R' and wake_others(lane)
end

local function take_permit(run_id, rev, lane, until_ms)
  for _, constraint in ipairs(constraints(lane)) do redis.call('HINCRBY', USED, constraint, 1) end
  redis.call('HSET', HOLDERS, run_id, string.format('%.0f ', rev) .. lane)
  redis.call('ZADD', PERMITS, until_ms, run_id)
end

-- Give a run's permits back; returns whether another lane got its turn.
local function return_permit(run_id)
  local _, lane = holder_of(run_id)
  redis.call('HDEL', HOLDERS, run_id)
  redis.call('ZREM', PERMITS, run_id)
  for _, constraint in ipairs(constraints(lane)) do
    if redis.call('HINCRBY', USED, constraint, -1) <= 0 then redis.call('HDEL', USED, constraint) end
  end
  return wake_others(lane)
end

