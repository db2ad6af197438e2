-- Enters a new session into its user's index and chooses who has to go, in one step: however many
-- sign-ins race, at most `max` stay. Those chosen stay entered until they have ended: whoever comes before
-- that chooses them too, and one more.
-- KEYS user · ARGV id, when it was made, when it expires, max, 1 to reject rather than to evict the
-- oldest, how many of those alive are of interest (0: all)
-- reply {1, ids of the victims}, or {0, the oldest of those alive: id, when it was made, and so on}
local max, few, told = tonumber(ARGV[4]), tonumber(ARGV[6]), {}
if redis.call('HLEN', KEYS[1]) < max then
  -- Ended ones counted too there is room: looking at each would cost a user of thousands milliseconds.
  enter(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), 0)
  outlive(tonumber(ARGV[3]) + hour)
  return { 1, told }
end
local alive, _, _, count = sessions(few > 0 and few)
local excess = math.min(count + 1 - max, count)
if excess > #alive then alive = sessions() end
if excess > 0 and ARGV[5] == '1' then
  for _, one in ipairs(alive) do
    told[#told + 1] = one.id
    told[#told + 1] = one.created
  end
  return { 0, told }
end
enter(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), 0)
outlive(tonumber(ARGV[3]) + hour)
for n = 1, excess do told[n] = alive[n].id end
return { 1, told }
