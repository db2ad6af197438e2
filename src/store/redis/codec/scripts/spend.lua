-- Spends requests that were admitted while the store was unavailable, as far as the limit has room.
-- KEYS counter
-- ARGV rule (see counter in limit.lua), number of requests
-- Reply, packed: number of malformed counters, the counter's report
-- Why a script: the counter is read and written in one step.
local c = counter(KEYS[1], ARGV[1])
update(c)
local _, left = struct.unpack('<BI8', report(c))
local count = math.min(tonumber(ARGV[2]), left)
if count > 0 then spend(c, count) end
return struct.pack('<I8', broken) .. report(c)
