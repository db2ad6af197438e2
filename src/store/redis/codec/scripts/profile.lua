-- Looks a profile up; without one, gives the lease to put it: the one that somebody else was given
-- and has not used yet, or a new one.
-- KEYS profile, lease · ARGV a new lease, how long it is good for (ms)
-- reply {profile}, or {nothing, lease}
local profile = redis.pcall('GET', KEYS[1])
if type(profile) == 'string' then return { profile } end
local lease = redis.pcall('GET', KEYS[2])
if type(lease) ~= 'string' then
  lease = ARGV[1]
  -- A server that takes no writes gives no lease.
  if redis.pcall('SET', KEYS[2], lease, 'PX', ARGV[2]).err then return { false } end
end
return { false, lease }
