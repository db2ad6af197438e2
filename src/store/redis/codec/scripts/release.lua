-- Gives a turn back, if it is still ours.
-- KEYS turn · ARGV ours
if redis.pcall('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
