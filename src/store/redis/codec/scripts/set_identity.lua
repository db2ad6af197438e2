-- Changes who a live session belongs to and what it may do, and counts the change; but not back to what
-- was before a change that is written already.
-- KEYS session, version of its user's identity · ARGV version, email, roles, scopes, name (absent: none)
-- reply 1 if it was written
local r = open(KEYS[1])
if not r or r[ENDED] > 0 then return 0 end
local version = redis.pcall('GET', KEYS[2])
version = type(version) == 'string' and tonumber(version) or 0
if version > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'PX', math.max(redis.call('PTTL', KEYS[1]), 1))
r.texts[EMAIL], r.texts[ROLES], r.texts[SCOPES] = ARGV[2], ARGV[3], ARGV[4]
-- What follows a NUL is the username, which stays.
local username = string.find(r.texts[NAME], '\0', 1, true)
if username then
  put(r, NAME, HAS_NAME, (ARGV[5] or '') .. string.sub(r.texts[NAME], username))
else
  put(r, NAME, HAS_NAME, ARGV[5])
end
r[REVISION] = r[REVISION] + 1
save(KEYS[1], r)
return 1
