-- Enters a new session into its user's index and chooses who has to go, in one step: however many
-- sign-ins race, at most `max` stay.
-- KEYS user · ARGV id, when it was made, when it expires, max, 1 to reject rather than to evict the
-- oldest
-- reply {1, ids of the victims, ids to forget}, or {0, those alive: id, when it was made, and so on}
local alive = sessions()
local excess = math.min(#alive + 1 - tonumber(ARGV[4]), #alive)
if excess > 0 and ARGV[5] == '1' then
  local told = {}
  for _, one in ipairs(alive) do
    told[#told + 1] = one.id
    told[#told + 1] = one.created
  end
  return { 0, told }
end
-- First what needs memory: a full server refuses it, and then nothing has changed.
enter(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), 0)
outlive(tonumber(ARGV[3]) + hour)
local victims = {}
for n = 1, excess do victims[n] = alive[n].id end
if #victims == 0 then return { 1, victims, victims } end
return { 1, victims, retire(victims) }
