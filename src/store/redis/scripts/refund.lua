-- Gives one request back to one counter, right after it was spent.
-- KEYS counter · ARGV as for a counter · reply how many counters were broken
local c = counter(KEYS[1], 1)
look(c)
local told = {}
report(told, 1, c)
if told[3] > 0 then give_back(c) end
return broken
