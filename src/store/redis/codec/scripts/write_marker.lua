-- Writes the marker; never lowers its global cut-off.
-- KEYS marker
-- ARGV id, second up to which tokens are rejected, TTL (ms)
-- Reply: the second in force
-- Why a script: the greater of the old and the new value is kept.
local second = tonumber(ARGV[2])
local previous = redis.pcall('GET', KEYS[1])
previous = type(previous) == 'string' and tonumber(string.match(previous, '^%x+ (%d+)$') or '')
if previous and previous > second then second = previous end
second = string.format('%.0f', second)
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. second, 'PX', ARGV[3])
return second
