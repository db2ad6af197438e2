-- Enters a new session into its user's index and chooses who has to go, in one step: however many
-- sign-ins race, at most `max` stay. Those chosen stay entered until they have ended: whoever comes before
-- that chooses them too, and one more.
-- KEYS user · ARGV id, when it was made, when it expires, max, 1 to reject rather than to evict the
-- oldest
-- reply {1, ids of the victims}, or {0, those alive: id, when it was made, and so on}
local alive = sessions()
local excess = math.min(#alive + 1 - tonumber(ARGV[4]), #alive)
local told = {}
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
