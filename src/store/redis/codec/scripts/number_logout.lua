-- Numbers a logout that a provider requests.
-- KEYS number of the latest logout
-- ARGV TTL (s)
-- Reply: the number
-- Why a script: a number is greater than all before it, also where the key was lost: it is at least the time.
local latest = redis.pcall('GET', KEYS[1])
latest = type(latest) == 'string' and tonumber(latest) or 0
local number = string.format('%.0f', math.max(latest + 1, ms))
redis.call('SET', KEYS[1], number, 'EX', ARGV[1])
return number
