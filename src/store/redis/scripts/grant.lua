-- Spends several requests at once from each counter, for a gateway that decides by itself then; or
-- from none, if a limit refuses.
-- KEYS counters
-- ARGV 1 parts: a gateway gets one part of what is left; then for each counter its rule (see counter),
--      how many are wished for, how many the gateway holds
-- reply, packed: now in microseconds, counters that were broken; then what each limit says, how many
--      were granted, and as of when
local refused = false
for n = 1, #KEYS do
  if refuses(n, counter(KEYS[n], ARGV[n * 3 - 1])) then refused = true end
end
local said = ''
for n = 1, #KEYS do
  local c, granted = limits[n], 0
  if not refused and c.wait == 0 then
    granted = grant(c, tonumber(ARGV[n * 3]), tonumber(ARGV[n * 3 + 1]), tonumber(ARGV[1]))
  end
  said = said .. report(c) .. struct.pack('<I8I8', granted, as_of(c))
end
return struct.pack('<I8I8', now, broken) .. said
