-- Tell which commands the store's user may not give; none of them is given.
-- KEYS  none: any node of a cluster can be asked
-- ARGV  1 .. commands, their words parted by spaces
-- RETURNS {'OK', commands that are refused ..} | {'OLD'}, from a server before Redis 7.0, which cannot tell
if not redis.acl_check_cmd then return {'OLD'} end
local refused = {'OK'}
for i = 1, #ARGV do
  local words = {}
  for word in string.gmatch(ARGV[i], '%S+') do words[#words + 1] = word end
  if not redis.acl_check_cmd(unpack(words)) then refused[#refused + 1] = ARGV[i] end
end
return refused
