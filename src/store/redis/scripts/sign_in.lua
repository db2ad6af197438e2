-- Enters a new session into its user's index and chooses who has to go, in one step: however many
-- sign-ins race, at most `max` stay.
-- ARGV member, when it expires, max, 1 to reject rather than to evict the oldest
-- reply {1, victims, members to forget}, or {0, those alive}
local alive = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', ms), '+inf')
table.sort(alive)
local excess = math.min(#alive + 1 - tonumber(ARGV[3]), #alive)
if excess > 0 and ARGV[4] == '1' then return { 0, alive } end
local victims = {}
for n = 1, excess do victims[n] = alive[n] end
-- First what needs memory: a full server refuses it, and then nothing has changed.
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', ms - hour))
outlive(KEYS[1], tonumber(ARGV[2]) + hour)
return { 1, victims, retire(victims) }
