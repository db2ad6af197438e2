-- Writes the user's identity to a session that has not ended, unless a later version is written already.
-- KEYS session, version of the identity
-- ARGV version, email, roles, scopes, name (absent: none)
-- Reply: 1 if it was written
-- Why a script: versions are compared and the record written in one step.
local r = load_record(KEYS[1])
if not r or r[ENDED] > 0 then return 0 end
local version = redis.pcall('GET', KEYS[2])
version = type(version) == 'string' and tonumber(version) or 0
if version > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'PX', math.max(redis.call('PTTL', KEYS[1]), 1))
r.texts[EMAIL], r.texts[ROLES], r.texts[SCOPES] = ARGV[2], ARGV[3], ARGV[4]
-- The username after the NUL is kept.
local username = string.find(r.texts[NAME], '\0', 1, true)
if username then
  set_text(r, NAME, HAS_NAME, (ARGV[5] or '') .. string.sub(r.texts[NAME], username))
else
  set_text(r, NAME, HAS_NAME, ARGV[5])
end
r[REVISION] = r[REVISION] + 1
save_record(KEYS[1], r)
return 1
