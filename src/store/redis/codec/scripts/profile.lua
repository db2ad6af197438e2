-- Looks a profile up; on a miss, returns the lease to store it: the unused lease of an earlier miss, or a
-- new one.
-- KEYS profile, lease
-- ARGV new lease, its TTL (ms)
-- Reply: {profile}, or {nil, lease}
-- Why a script: the miss and the lease are one step; a change in between would be missed.
local profile = redis.pcall('GET', KEYS[1])
if type(profile) == 'string' then return { profile } end
local lease = redis.pcall('GET', KEYS[2])
if type(lease) ~= 'string' then
  lease = ARGV[1]
  -- A read-only server cannot grant a lease.
  if redis.pcall('SET', KEYS[2], lease, 'PX', ARGV[2]).err then return { false } end
end
return { false, lease }
