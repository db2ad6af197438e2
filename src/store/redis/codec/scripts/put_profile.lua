-- Keeps a profile, if its lease is still good; the lease is used up.
-- KEYS profile, lease · ARGV lease, profile, how long it is kept (ms) · reply 1 if it was kept
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
