-- Stores a profile if its lease is still valid, and deletes the lease.
-- KEYS profile, lease
-- ARGV lease, profile, TTL (ms)
-- Reply: 1 if the profile was stored
-- Why a script: the lease is checked and the profile written in one step.
if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
