-- Looks at one counter and spends nothing.
-- KEYS counter · ARGV as for a counter · reply now, broken, then the four numbers of report
local c = counter(KEYS[1], 1)
look(c)
local reply = { now, broken }
report(reply, 3, c)
return reply
