-- Adds a new session to its user's index and selects the sessions to evict.
-- KEYS user
-- ARGV id, creation time (ms), expiry (ms), max, 1 to reject the session instead of evicting the oldest,
-- number of active sessions to return (0: all)
-- Reply: {1, ids to evict}, or {0, the oldest active sessions: id, creation time, and so on}
-- Why a script: however many sign-ins are concurrent, at most `max` sessions remain. Selected sessions stay
-- in the index until they have ended; a sign-in before that selects them as well, and one more.
local max, few, listed = tonumber(ARGV[4]), tonumber(ARGV[6]), {}
if redis.call('HLEN', KEYS[1]) < max then
  -- Room even with the ended sessions: reading all of thousands would take milliseconds.
  add_entry(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), 0)
  extend_ttl(tonumber(ARGV[3]) + hour)
  return { 1, listed }
end
local active, _, _, count = sessions(few > 0 and few)
local excess = math.min(count + 1 - max, count)
if excess > #active then active = sessions() end
if excess > 0 and ARGV[5] == '1' then
  for _, session in ipairs(active) do
    listed[#listed + 1] = session.id
    listed[#listed + 1] = session.created
  end
  return { 0, listed }
end
add_entry(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), 0)
extend_ttl(tonumber(ARGV[3]) + hour)
for n = 1, excess do listed[n] = active[n].id end
return { 1, listed }
