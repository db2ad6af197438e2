-- Raises the second up to which a user's tokens without a session are rejected; never lowers it.
-- KEYS cut-off
-- ARGV TTL (ms), second (empty: now)
-- Reply: the second in force
-- Why a script: the greater of the old and the new value is kept, by the server's clock.
local second = tonumber(ARGV[2]) or tonumber(clock[1])
local previous = redis.pcall('GET', KEYS[1])
previous = type(previous) == 'string' and tonumber(previous)
if previous and previous > second then second = previous end
second = string.format('%.0f', second)
redis.call('SET', KEYS[1], second, 'PX', ARGV[1])
return second
