-- Who many requests are: of each its session, the blacklist, the cut-off, as far as it asks for them.
-- KEYS for each: session and its use, blacklist entry, cut-off
-- ARGV for each, packed: what it asks for (1 session, 2 blacklist, 4 cut-off), the last use of the session
--       that the caller knows of, the idle timeout (0: none), both in ms, and one more than the revision
--       that it has (0: none)
-- reply for each, packed: as decide.lua replies where there are no limits
local replies, key = {}, 0
for n = 1, #ARGV do
  local asks, last, idle, has = struct.unpack('<BI8I8I8', ARGV[n])
  local status, used, listed, cut_off, known = 0, 0, 0, 0, ''
  if asks % 2 == 1 then
    local record, revision
    status, used, record, revision = standing(KEYS[key + 1], KEYS[key + 2], last, idle)
    if record and (status ~= 5 or has ~= revision + 1) then known = record end
    key = key + 2
  end
  if asks % 4 >= 2 then
    key = key + 1
    listed = redis.call('EXISTS', KEYS[key])
  end
  if asks >= 4 then
    key = key + 1
    cut_off = cut_off_at(KEYS[key])
  end
  replies[n] = struct.pack('<I8BI8BI8I8I8', now, status, used, listed, cut_off, 0, 0) .. known
end
return replies
