-- Restarts a session's idle timeout.
-- KEYS session, use
-- ARGV idle timeout (ms; 0: none)
-- Reply: {record, use}, or nil if the session is not active
-- Why a script: the status is checked and the use written in one step.
local r, u = load_record(KEYS[1]), load_use(KEYS[2])
if not r or not is_active(r, tonumber(ARGV[1]), u.last) then return false end
u.last = math.max(u.last, ms)
save_use(KEYS[2], u, KEYS[1])
return { encode_record(r), encode_use(u) }
