-- Enters a session into its user's index again, from which it was lost.
-- KEYS user · ARGV id, when it was made, when it expires · reply 1 if it was not there
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
enter(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), 0)
outlive(tonumber(ARGV[3]) + hour)
return 1
