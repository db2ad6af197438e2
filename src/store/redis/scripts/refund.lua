-- Gives requests back to one counter.
-- KEYS counter · ARGV as for a counter, 6 how many, 7 as of when they were spent (µs; 0: right now)
-- reply how many counters were broken
local c = counter(KEYS[1], 1)
look(c)
local told, at = {}, tonumber(ARGV[7])
report(told, 1, c)
if told[3] > 0 then give_back(c, tonumber(ARGV[6]), at > 0 and at or now) end
return broken
