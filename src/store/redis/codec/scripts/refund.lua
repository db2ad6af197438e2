-- Refunds requests to one counter.
-- KEYS counter
-- ARGV 1 rule (see counter in limit.lua), 2 number of requests, 3 when they were spent (µs; 0: now)
-- Reply: number of malformed counters
-- Why a script: the counter is read and written in one step.
local c = counter(KEYS[1], ARGV[1])
update(c)
local _, _, reset_after = struct.unpack('<BI8I8', report(c))
local at = tonumber(ARGV[3])
if reset_after > 0 then refund(c, tonumber(ARGV[2]), at > 0 and at or now) end
return broken
