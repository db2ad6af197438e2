-- Writes a session. A mark that it was ended meanwhile (see end_session) stays: it is then born
-- ended.
-- KEYS session · ARGV when the key may go (Unix ms), then fields and values
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
local pairs_of = {}
for n = 2, #ARGV do pairs_of[n - 1] = ARGV[n] end
redis.call('HSET', KEYS[1], unpack(pairs_of))
redis.call('PEXPIREAT', KEYS[1], ARGV[1])
return redis.call('HEXISTS', KEYS[1], 'ended_at')
