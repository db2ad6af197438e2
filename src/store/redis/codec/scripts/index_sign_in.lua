-- Enters a user into the index of sign-ins at a provider.
-- KEYS users of a `sid` or a `sub`
-- ARGV user, time until which the entry is kept (ms), maximum number of users
-- Reply: 1
-- Why a script: the index is pruned and its lifetime extended in one step.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end

local latest = tonumber(ARGV[2])
local previous = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '')
if previous then latest = math.max(latest, previous) end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', latest))

local all, others = redis.call('HGETALL', KEYS[1]), {}
for n = 1, #all, 2 do
  local to = tonumber(all[n + 1]) or 0
  latest = math.max(latest, to)
  if all[n] ~= ARGV[1] then others[#others + 1] = { user = all[n], to = to } end
end
table.sort(others, function(a, b) return a.to > b.to end)
for n, other in ipairs(others) do
  if other.to <= ms or n >= tonumber(ARGV[3]) then redis.call('HDEL', KEYS[1], other.user) end
end
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', latest))
return 1
