-- Drops the reports of open connections that do not count any more.
-- KEYS live · reply how many those were
local all, dropped = redis.call('HGETALL', KEYS[1]), 0
for n = 1, #all, 2 do
  local till = tonumber(string.match(all[n + 1], ' (%d+)$') or '')
  if not till or till <= math.floor(now / 1000) then
    redis.call('HDEL', KEYS[1], all[n])
    dropped = dropped + 1
  end
end
return dropped
