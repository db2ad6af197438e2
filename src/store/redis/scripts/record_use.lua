-- Adds uses to a session, if it is there.
-- KEYS session, use · ARGV requests, last use (ms), address · reply 1 if it was there
local u = used(KEYS[2])
if not u.there and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
add(u, tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3])
keep(KEYS[2], u, KEYS[1])
return 1
