-- Notes that a person's tokens without session are refused up to this second.
-- KEYS cut-off · ARGV how long that is kept (ms)
return redis.call('SET', KEYS[1], clock[1], 'PX', ARGV[1])
