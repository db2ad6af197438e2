-- Writes the marker; what it refuses already stays refused.
-- KEYS marker · ARGV its id, the second up to which tokens are refused, how long it lives (ms)
-- reply the second
local second = tonumber(ARGV[2])
local known = redis.pcall('GET', KEYS[1])
known = type(known) == 'string' and tonumber(string.match(known, '^%x+ (%d+)$') or '')
if known and known > second then second = known end
second = string.format('%.0f', second)
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. second, 'PX', ARGV[3])
return second
