-- Adds uses to sessions, to those that are there.
-- KEYS for each: session, use · ARGV for each: requests, last use (ms), address · reply how many were there
local there = 0
for at = 1, #KEYS / 2 do
  local session, key = KEYS[2 * at - 1], KEYS[2 * at]
  local u = used(key)
  if u.there or redis.call('EXISTS', session) == 1 then
    add(u, tonumber(ARGV[3 * at - 2]), tonumber(ARGV[3 * at - 1]), ARGV[3 * at])
    keep(key, u, session)
    there = there + 1
  end
end
return there
