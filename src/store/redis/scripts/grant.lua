-- Spends several requests at once from each counter, for a gateway that decides by itself then; or
-- from none, if a limit refuses.
-- KEYS counters
-- ARGV 1 parts: a gateway gets one part of what is left; then for each counter its algorithm, limit,
--      width, burst, shadow, how many are wished for, how many the gateway holds
-- reply now, counters that were broken; then for each counter the four numbers of report, how many
--       were granted, and as of when
local parts, limits, refuses = tonumber(ARGV[1]), {}, false
for n = 1, #KEYS do
  local c = counter(KEYS[n], n * 7 - 5)
  look(c)
  if c.wait > 0 and not c.shadow then refuses = true end
  limits[n] = c
end
local reply = { now, broken, nil, nil, nil, nil, nil, nil }
for n = 1, #limits do
  local c, at, granted = limits[n], n * 6 - 3, 0
  if not refuses and c.wait == 0 then
    granted = grant(c, tonumber(ARGV[n * 7]), tonumber(ARGV[n * 7 + 1]), parts)
  end
  report(reply, at, c)
  reply[at + 4], reply[at + 5] = granted, as_of(c)
end
return reply
