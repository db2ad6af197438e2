-- Puts the successor in the place of the refresh token presented; of those who present the same one
-- at once, one rotates and the others replay. One step, for else two would both see it as current.
-- KEYS session, refresh · ARGV hash presented, 1 if it bears our mark, hash of its successor, grace
-- (ms), when the successor ends (Unix ms)
-- reply 1 rotated, 2 replayed, 3 reused, 4 unknown, 5 expired, 6 the session is gone
-- The refresh hash: `current`, `until`, `reused`, and `rotated`: "<hash> <when> " for each token
-- rotated within the grace time, the oldest first.
local ms = math.floor(now / 1000)
local presented, successor, grace = ARGV[1], ARGV[3], tonumber(ARGV[4])
local session = redis.pcall('HMGET', KEYS[1], 'user', 'expires', 'ended_at')
local alive = not session.err and session[1] and not session[3]
  and ms < (tonumber(session[2] or 0) or 0)
if redis.call('TYPE', KEYS[2]).ok ~= 'hash' then redis.call('DEL', KEYS[2]) end
local kept = redis.call('HMGET', KEYS[2], 'current', 'until', 'rotated', 'reused')
local current, till = kept[1], tonumber(kept[2] or 0) or 0
if not current then return (ARGV[2] == '1' and not alive) and 6 or 4 end

-- What followed each token that may still be replayed: the next in the list, the last one by the
-- current one.
local list, rotated, following, earlier = {}, '', nil, false
for hash, at in string.gmatch(kept[3] or '', '(%x+) (%d+) ') do
  if ms < tonumber(at) + grace then
    list[#list + 1] = hash
    rotated = rotated .. hash .. ' ' .. at .. ' '
  end
end
for n, hash in ipairs(list) do
  if hash == presented then earlier, following = true, list[n + 1] or current end
end

if presented ~= current and not earlier and ARGV[2] ~= '1' then return 4 end
if not alive then return 6 end
if kept[4] then return 3 end
if presented == current then
  if ms >= till then return 5 end
  rotated = rotated .. current .. ' ' .. string.format('%.0f', ms) .. ' '
  redis.call('HSET', KEYS[2], 'current', successor, 'until', ARGV[5], 'rotated', rotated)
  redis.call('PEXPIREAT', KEYS[2], string.format('%.0f', tonumber(ARGV[5]) + 3600000))
  return 1
end
if earlier then return following == successor and 2 or 4 end
redis.call('HSET', KEYS[2], 'reused', 1)
return 3
