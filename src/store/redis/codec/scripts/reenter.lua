-- Restores a session's entry in its user's index, if it is missing.
-- KEYS user
-- ARGV id, creation time (ms), expiry (ms)
-- Reply: 1 if it was missing
-- Why a script: an existing entry, which may have ended, is kept.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
add_entry(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), 0)
extend_ttl(tonumber(ARGV[3]) + hour)
return 1
