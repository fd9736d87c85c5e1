-- Have a run's webhook told again of what comes after a seq, whatever became of it; who delivers now is fenced.
-- KEYS  1 record hash    2 webhook states hash
-- ARGV  1 webhook id    2 seq    3 state in which it delivers
-- RETURNS {'OK'} | {'SEQ', head_seq} | {'MISSING'}
local head = redis.call('HGET', KEYS[1], 'head_seq')
if not head then return {'MISSING'} end
if tonumber(ARGV[2]) > tonumber(head) then return {'SEQ', tonumber(head)} end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ' 0 0 0 - 0 ' .. ARGV[3])
return {'OK'}
