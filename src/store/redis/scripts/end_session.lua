-- Marks a session as ended, if it is there and alive; never brings one back. One that has expired by
-- being idle ends now for good: no use that is told later, and no longer timeout, revives it.
-- KEYS session, activity
-- ARGV reason ('': only look whether it is idle); 1 to leave a mark for a minute where there is no
-- session, for a sign-in that has entered it into its user's index and is about to write it; idle
-- timeout in ms (0: none)
-- reply {outcome, user, created, expires}: 0 missing, 1 ended now, 2 had ended, 3 had expired,
-- 4 malformed, 5 was idle for too long, 6 alive
local ms = math.floor(now / 1000)
local session = redis.pcall('HMGET', KEYS[1], 'user', 'created', 'expires', 'ended_at')
if session.err then
  if string.sub(session.err, 1, 9) ~= 'WRONGTYPE' then error(session) end
  return { 4 }
end
local user, created, expires = session[1], tonumber(session[2]), tonumber(session[3])
if not user then
  if ARGV[2] == '1' then
    redis.call('HSET', KEYS[1], 'ended_at', string.format('%.0f', ms), 'ended_reason', ARGV[1])
    redis.call('PEXPIRE', KEYS[1], 60000)
  end
  return { 0 }
end
if not created or not expires then return { 4 } end
if session[4] then return { 2, user, created, expires } end
if ms >= expires then return { 3, user, created, expires } end
local idle = tonumber(ARGV[3])
if idle > 0 then
  local last = redis.pcall('HGET', KEYS[2], 'last')
  last = type(last) == 'string' and tonumber(last) or 0
  if ms >= math.max(last, created) + idle then
    redis.call('HSET', KEYS[1], 'expires', string.format('%.0f', ms))
    return { 5, user, created, ms }
  end
end
if ARGV[1] == '' then return { 6 } end
redis.call('HSET', KEYS[1], 'ended_at', string.format('%.0f', ms), 'ended_reason', ARGV[1])
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', math.max(expires, ms + 3600000)))
return { 1, user, created, expires }
