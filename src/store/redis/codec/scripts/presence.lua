-- Announces the presence of a gateway, and removes gateways whose announcement has expired.
-- KEYS gateways
-- ARGV name, time up to which it has confirmed changes (ms), validity (ms)
-- Reply: number of gateways
-- Why a script: announcements expire one by one, by the server's clock.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %.0f', ARGV[2], ms + tonumber(ARGV[3])))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local all, present = redis.call('HGETALL', KEYS[1]), 0
for n = 1, #all, 2 do
  local expires_at = tonumber(string.match(all[n + 1], ' (%d+)$') or '')
  if expires_at and expires_at > ms then
    present = present + 1
  else
    redis.call('HDEL', KEYS[1], all[n])
  end
end
return present
