-- Reads one counter without spending.
-- KEYS counter
-- ARGV rule (see counter in limit.lua)
-- Reply: as charge.lua
-- Why a script: the state is computed by the server's clock.
local c = counter(KEYS[1], ARGV[1])
update(c)
return struct.pack('<I8I8', now, broken) .. report(c)
