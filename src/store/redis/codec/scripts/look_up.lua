-- Looks up session, blacklist entry and cut-off of many requests.
-- KEYS for each request, as far as queried: session and its use, blacklist entry, cut-off
-- ARGV for each request, packed: what is queried (1 session, 2 blacklist, 4 cut-off, added), latest use on
--       the gateway (ms), idle timeout (ms; 0: none), cached revision plus one (0: none)
-- Reply: for each request, packed, the reply of decide.lua without limits
-- Why a script: requests that arrive together share one round trip.
local replies, key = {}, 0
for n = 1, #ARGV do
  local parts, last, idle, cached = struct.unpack('<BI8I8I8', ARGV[n])
  local status, last_use, blacklisted, cut_off, record_reply = 0, 0, 0, 0, ''
  if parts % 2 == 1 then
    local record, revision
    status, last_use, record, revision = session_status(KEYS[key + 1], KEYS[key + 2], last, idle)
    if record and (status ~= 5 or cached ~= revision + 1) then record_reply = record end
    key = key + 2
  end
  if parts % 4 >= 2 then
    key = key + 1
    blacklisted = redis.call('EXISTS', KEYS[key])
  end
  if parts >= 4 then
    key = key + 1
    cut_off = read_cut_off(KEYS[key])
  end
  replies[n] = struct.pack('<I8BI8BI8I8I8', now, status, last_use, blacklisted, cut_off, 0, 0)
    .. record_reply
end
return replies
