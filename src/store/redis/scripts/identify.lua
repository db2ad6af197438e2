-- Changes who a live session belongs to and what it may do, and counts the change.
-- KEYS session · ARGV email, roles, scopes, name (absent: none) · reply 1 if it was alive
local r = open(KEYS[1])
if not r or r[ENDED] > 0 then return 0 end
r.texts[EMAIL], r.texts[ROLES], r.texts[SCOPES] = ARGV[1], ARGV[2], ARGV[3]
put(r, NAME, HAS_NAME, ARGV[4])
r[REVISION] = r[REVISION] + 1
save(KEYS[1], r)
return 1
