-- Writes a session's provider tokens, unless they have changed since they were read.
-- KEYS session, provider tokens
-- ARGV version of the new tokens, version that was read (0: none; empty: any older one), value
-- Reply: 0 the session is not alive, 1 they have changed, 2 written
-- Why a script: the session and the version are checked and the tokens written in one step.
local r = load_record(KEYS[1])
if not r or r[ENDED] > 0 or ms >= r[EXPIRES] then return 0 end
local previous = get_string(KEYS[2])
local version = 0
if previous and #previous >= 6 then version = struct.unpack('<I6', previous) end
if ARGV[2] == '' then
  if version >= tonumber(ARGV[1]) then return 1 end
elseif version ~= tonumber(ARGV[2]) then
  return 1
end
-- The clean-up drops those of an expired session, so that they are revoked at the provider.
redis.call('SET', KEYS[2], ARGV[3], 'PXAT', string.format('%.0f', r[EXPIRES] + hour))
return 2
