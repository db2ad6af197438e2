-- Gives one request back to one counter, right after it was spent.
-- KEYS counter · ARGV its rule (see counter) · reply how many counters were broken
local c = counter(KEYS[1], ARGV[1])
look(c)
local _, _, whole = struct.unpack('<BI8I8', report(c))
if whole > 0 then give_back(c) end
return broken
