-- Spends requests that were admitted while the store was away, as many of them as there is room for.
-- KEYS counter · ARGV its rule (see counter), how many
-- reply, packed: counters that were broken, what the limit says then
local c = counter(KEYS[1], ARGV[1])
look(c)
local _, left = struct.unpack('<BI8', report(c))
local many = math.min(tonumber(ARGV[2]), left)
if many > 0 then spend(c, many) end
return struct.pack('<I8', broken) .. report(c)
