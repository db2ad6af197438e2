-- Moves a session's idle expiry to now.
-- KEYS session · ARGV idle timeout (ms, 0: none) · reply the record, or nothing if it is not alive
local r = open(KEYS[1])
if not r or not alive(r, tonumber(ARGV[1])) then return false end
r[LAST] = math.max(r[LAST], ms)
save(KEYS[1], r)
return raw(r)
