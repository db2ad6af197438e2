-- Moves a session's idle expiry to now.
-- KEYS session, use · ARGV idle timeout (ms, 0: none) · reply {record, use}, or nothing if it is not
-- alive
local r, u = open(KEYS[1]), used(KEYS[2])
if not r or not alive(r, tonumber(ARGV[1]), u.last) then return false end
u.last = math.max(u.last, ms)
keep(KEYS[2], u, KEYS[1])
return { raw(r), written(u) }
