-- Releases a lease, if the caller still holds it.
-- KEYS lease
-- ARGV the caller's value
-- Reply: 1 if it was released
-- Why a script: the value is checked and the key deleted in one step.
if redis.pcall('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
