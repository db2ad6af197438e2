-- Changes a session's data and device name, if the record still has the revision that was read.
-- KEYS session, use
-- ARGV idle timeout (ms; 0: none), expected revision, data, device name (absent: none)
-- Reply: {record, use}; 0 if the session is not active, 1 if the revision differs
-- Why a script: the revision is checked and the record written in one step.
local r, u = load_record(KEYS[1]), load_use(KEYS[2])
if not r or not is_active(r, tonumber(ARGV[1]), u.last) then return 0 end
if r[REVISION] ~= tonumber(ARGV[2]) then return 1 end
r[REVISION] = r[REVISION] + 1
r.texts[DATA] = ARGV[3]
set_text(r, DEVICE, HAS_DEVICE, ARGV[4])
save_record(KEYS[1], r)
return { encode_record(r), encode_use(u) }
