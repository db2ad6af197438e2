-- Writes a new session. If it was ended meanwhile (see the tombstone in end_session.lua), it is written as
-- ended. An existing record is kept: no session is revived.
-- KEYS session, use
-- ARGV expiry of the keys (Unix ms), record, use
-- Reply: 1 written, 2 written as ended, 3 a record exists
-- Why a script: the tombstone is checked and the record written in one step.
local r, state, tombstone = load_record(KEYS[1])
if r then return 3 end
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[1])
redis.call('SET', KEYS[2], ARGV[3], 'PXAT', ARGV[1])
if state ~= 'tombstone' then return 1 end
r = load_record(KEYS[1])
local tag, ended, reason = struct.unpack('<BI6B', tombstone)
r[ENDED], r[REASON] = ended, reason
save_record(KEYS[1], r)
return 2
