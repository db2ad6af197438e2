-- Adds uses to a session's activity, if the session is there.
-- KEYS session, activity · ARGV requests, last use (ms), address · reply 1 if it was there
local ttl = redis.call('PTTL', KEYS[1])
if ttl == -2 then return 0 end
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[2]) end
local seen = redis.call('HMGET', KEYS[2], 'last', 'ips', 'count')
local ips, count = ARGV[3], 1
for ip in string.gmatch(seen[2] or '', '[^ ]+') do
  if ip ~= ARGV[3] and count < 10 then
    ips, count = ips .. ' ' .. ip, count + 1
  end
end
local last = math.max(tonumber(seen[1] or 0) or 0, tonumber(ARGV[2]))
redis.call('HSET', KEYS[2], 'last', string.format('%.0f', last), 'ips', ips,
  'count', string.format('%.0f', (tonumber(seen[3] or 0) or 0) + tonumber(ARGV[1])))
redis.call('PEXPIRE', KEYS[2], math.max(ttl, 60000))
return 1
