-- A user's two indexes. Members are "<created, 16 digits>:<session id>", so that they sort by age.
-- KEYS 1 those alive, scored by when they expire · 2 those ended, scored by when they ended
local ms = math.floor(now / 1000)
local hour, kept = 3600000, 50

for n = 1, 2 do
  local kind = redis.call('TYPE', KEYS[n]).ok
  if kind ~= 'zset' and kind ~= 'none' then redis.call('DEL', KEYS[n]) end
end

-- The key lives at least until `moment`.
local function outlive(key, moment)
  local ttl = redis.call('PTTL', key)
  if ttl < 0 or ms + ttl < moment then
    redis.call('PEXPIREAT', key, string.format('%.0f', moment))
  end
end

-- Moves sessions to those ended; gives the members that are one too many there.
local function retire(members)
  local latest = ms + hour
  for _, member in ipairs(members) do
    local expires = tonumber(redis.call('ZSCORE', KEYS[1], member) or nil)
    if expires then
      redis.call('ZREM', KEYS[1], member)
      redis.call('ZADD', KEYS[2], string.format('%.0f', ms), member)
      latest = math.max(latest, expires + hour)
    end
  end
  if redis.call('EXISTS', KEYS[2]) == 0 then return {} end
  outlive(KEYS[2], latest)
  local dropped = redis.call('ZRANGE', KEYS[2], 0, -kept - 1)
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -kept - 1)
  return dropped
end
