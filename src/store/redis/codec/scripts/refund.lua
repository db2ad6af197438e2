-- Gives requests back to one counter.
-- KEYS counter · ARGV 1 its rule (see counter), 2 how many, 3 as of when they were spent (µs; 0: now)
-- reply how many counters were broken
local c = counter(KEYS[1], ARGV[1])
look(c)
local _, _, whole = struct.unpack('<BI8I8', report(c))
local at = tonumber(ARGV[3])
if whole > 0 then give_back(c, tonumber(ARGV[2]), at > 0 and at or now) end
return broken
