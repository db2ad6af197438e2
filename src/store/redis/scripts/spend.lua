-- Spends requests that were admitted while the store was away, as many of them as there is room for.
-- KEYS counter · ARGV as for a counter, 6 how many
-- reply counters that were broken, then the four numbers of report
local c = counter(KEYS[1], 1)
look(c)
local reply = { broken }
report(reply, 2, c)
local many = math.min(tonumber(ARGV[6]), reply[3])
if many > 0 then
  spend(c, many)
  report(reply, 2, c)
end
return reply
