-- Changes what the holder of a session may change, if the record is still the one that was read.
-- KEYS session, use · ARGV idle timeout (ms, 0: none), revision that was read, data, device's name
-- (absent: none)
-- reply {record, use}; 0 if it is not alive, 1 if it is another revision
local r, u = open(KEYS[1]), used(KEYS[2])
if not r or not alive(r, tonumber(ARGV[1]), u.last) then return 0 end
if r[REVISION] ~= tonumber(ARGV[2]) then return 1 end
r[REVISION] = r[REVISION] + 1
r.texts[DATA] = ARGV[3]
put(r, DEVICE, HAS_DEVICE, ARGV[4])
save(KEYS[1], r)
return { raw(r), written(u) }
