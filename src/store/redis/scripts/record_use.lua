-- Adds uses to a session, if it is there.
-- KEYS session · ARGV requests, last use (ms), address · reply 1 if it was there
local r = open(KEYS[1])
if not r then return 0 end
use(r, tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3])
save(KEYS[1], r)
return 1
