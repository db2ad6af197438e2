-- Looks at one counter and spends nothing.
-- KEYS counter · ARGV its rule (see counter) · reply as of charge.lua
local c = counter(KEYS[1], ARGV[1])
look(c)
return struct.pack('<I8I8', now, broken) .. report(c)
