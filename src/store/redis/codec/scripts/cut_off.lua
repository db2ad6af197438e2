-- Notes that a person's tokens without session are refused up to a second; never up to an earlier one
-- than before.
-- KEYS cut-off · ARGV how long that is kept (ms), the second (empty: now) · reply the second
local second = tonumber(ARGV[2]) or tonumber(clock[1])
local known = redis.pcall('GET', KEYS[1])
known = type(known) == 'string' and tonumber(known)
if known and known > second then second = known end
second = string.format('%.0f', second)
redis.call('SET', KEYS[1], second, 'PX', ARGV[1])
return second
