-- Marks a session as ended, if it is there and alive; never brings one back. One that has expired by
-- being idle ends now for good: no use that is told later, and no longer timeout, revives it.
-- KEYS session, use
-- ARGV reason (0: only look whether it is idle); 1 to leave a mark for a minute where there is no
-- session, for a sign-in that has entered it into its user's index and is about to write it; idle
-- timeout in ms (0: none)
-- reply {outcome, user}: 0 missing, 1 ended now, 2 had ended, 3 had expired, 4 malformed, 5 was idle
-- for too long, 6 alive
local reason, idle = tonumber(ARGV[1]), tonumber(ARGV[3])
local r, state = open(KEYS[1])
if not r then
  if state == 'malformed' then return { 4 } end
  if ARGV[2] == '1' then
    redis.call('SET', KEYS[1], struct.pack('<BI6B', 69, ms, reason), 'PX', 60000)
  end
  return { 0 }
end
local user = r.texts[USER]
if r[ENDED] > 0 then
  -- Written all the same: who waits for replicas waits for what was written.
  local till = string.format('%.0f', math.max(r[EXPIRES], r[ENDED] + hour))
  redis.call('PEXPIREAT', KEYS[1], till)
  return { 2, user }
end
if ms >= r[EXPIRES] then return { 3, user } end
if idle_for_too_long(r, idle, used(KEYS[2]).last) then
  r[EXPIRES] = ms
  save(KEYS[1], r)
  return { 5, user }
end
if reason == 0 then return { 6 } end
r[ENDED], r[REASON] = ms, reason
local till = string.format('%.0f', math.max(r[EXPIRES], ms + hour))
redis.call('SET', KEYS[1], raw(r), 'PXAT', till)
redis.call('PEXPIREAT', KEYS[2], till)
return { 1, user }
