-- Changes who a live session belongs to and what it may do, and counts the change.
-- KEYS session · ARGV email, roles, scopes, name (absent: none) · reply 1 if it was alive
local session = redis.pcall('HMGET', KEYS[1], 'user', 'ended_at')
if session.err or not session[1] or session[2] then return 0 end
redis.call('HSET', KEYS[1], 'email', ARGV[1], 'roles', ARGV[2], 'scopes', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'revision', 1)
if ARGV[4] then
  redis.call('HSET', KEYS[1], 'name', ARGV[4])
else
  redis.call('HDEL', KEYS[1], 'name')
end
return 1
