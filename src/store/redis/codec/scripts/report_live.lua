-- Notes how many connections of a session one gateway has open, and until when that counts.
-- KEYS live · ARGV gateway, count (0: none any more), how long it counts (ms)
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
if ARGV[2] == '0' then return redis.call('HDEL', KEYS[1], ARGV[1]) end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %.0f', ARGV[2], ms + tonumber(ARGV[3])))
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
