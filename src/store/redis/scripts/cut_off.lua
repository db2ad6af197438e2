-- Notes that a person's tokens without session are refused up to this second.
-- KEYS cut-off · ARGV how long that is kept (ms) · reply the second
redis.call('SET', KEYS[1], clock[1], 'PX', ARGV[1])
return clock[1]
