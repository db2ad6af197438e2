-- Writes a session where there is none. A mark that it was ended meanwhile (see end_session) counts:
-- it is then born ended. A record that is there stays, whatever its state: nothing is brought back.
-- KEYS session, use · ARGV when the keys may go (Unix ms), record, use
-- reply 1 written, 2 born ended, 3 there is one
local r, state, mark = open(KEYS[1])
if r then return 3 end
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[1])
redis.call('SET', KEYS[2], ARGV[3], 'PXAT', ARGV[1])
if state ~= 'marked' then return 1 end
r = open(KEYS[1])
local tag, ended, reason = struct.unpack('<BI6B', mark)
r[ENDED], r[REASON] = ended, reason
save(KEYS[1], r)
return 2
