-- How a numbered append is recognised, for the scripts that append: a writer's position is of its last one.
-- KEYS  its caller's: the hash of positions is an argument of it
-- RETURNS nothing when it is the next one, which is to be stored; else the word to answer, and what belongs to it:
-- 'DUPLICATE', first_seq, last_seq | 'FENCED', attempt, status | 'GAP' | 'STALE', expected | 'MISMATCH' | 'WRITERS'
local function recognise(writers, writer, first, last, fingerprint, named, attempt, status, most)
  local p = redis.call('HGET', writers, writer)
  if not p then
    if first ~= 1 then return 'GAP', 1 end
    if redis.call('HLEN', writers) >= most then return 'WRITERS' end
    return
  end
  local at, number, from, to, print = string.match(p, '^(%d+) (%d+) (%d+) (%d+) (.*)$')
  at, number = tonumber(at), tonumber(number)
  local repeats = last == number and print == fingerprint
  if not named and at ~= attempt then
    -- Its first number again could be a repeat as well as the beginning of the new attempt: it must name one.
    if first == 1 and repeats or first ~= 1 and not repeats then return 'FENCED', attempt, status end
  end
  if repeats and first ~= 1 and not named or last == number and (named or attempt) == at then
    if not repeats then return 'MISMATCH' end
    return 'DUPLICATE', tonumber(from), tonumber(to)
  end
  if at == attempt then
    if first <= number then return 'STALE', number + 1 end
    if first > number + 1 then return 'GAP', number + 1 end
  elseif named == attempt and first ~= 1 then
    return 'GAP', 1
  end
end

