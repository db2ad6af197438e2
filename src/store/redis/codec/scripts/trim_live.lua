-- Drops expired reports of open connections.
-- KEYS live
-- Reply: number of dropped reports
-- Why a script: a report that is renewed meanwhile is kept.
local all, dropped = redis.call('HGETALL', KEYS[1]), 0
for n = 1, #all, 2 do
  local expires_at = tonumber(string.match(all[n + 1], ' (%d+)$') or '')
  if not expires_at or expires_at <= math.floor(now / 1000) then
    redis.call('HDEL', KEYS[1], all[n])
    dropped = dropped + 1
  end
end
return dropped
