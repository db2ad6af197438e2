-- Notes that a gateway is there, and forgets those that have said nothing for long.
-- KEYS gateways · ARGV name, up to when it has heard of changes (ms), how long that counts (ms)
-- reply how many there are
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %.0f', ARGV[2], ms + tonumber(ARGV[3])))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local all, there = redis.call('HGETALL', KEYS[1]), 0
for n = 1, #all, 2 do
  local till = tonumber(string.match(all[n + 1], ' (%d+)$') or '')
  if till and till > ms then
    there = there + 1
  else
    redis.call('HDEL', KEYS[1], all[n])
  end
end
return there
