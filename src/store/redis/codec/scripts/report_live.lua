-- Reports the number of a session's open connections on one gateway.
-- KEYS live
-- ARGV gateway, number (0: withdraws the report), validity (ms)
-- Reply: none that is used
-- Why a script: reports expire one by one, by the server's clock.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
if ARGV[2] == '0' then return redis.call('HDEL', KEYS[1], ARGV[1]) end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %.0f', ARGV[2], ms + tonumber(ARGV[3])))
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
