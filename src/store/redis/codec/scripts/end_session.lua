-- Marks an active session as ended, and deletes its provider tokens. An idle session expires now, so that neither a use that is written
-- later nor a longer timeout revives it.
-- KEYS session, use, provider tokens
-- ARGV reason (0: only expire an idle session); 1 to leave a tombstone for a minute if there is no
-- session, for a sign-in that has added it to its user's index and is about to write it; idle timeout
-- (ms; 0: none)
-- Reply: {outcome, user, deleted provider tokens (empty: none)}; outcome 0 missing, 1 ended now, 2 had ended, 3 had expired, 4 malformed,
-- 5 expired by idleness, 6 active
-- Why a script: the status is checked and changed in one step; an ended session is never revived.
local function drop_tokens()
  local tokens = get_string(KEYS[3])
  if tokens ~= nil then redis.call('DEL', KEYS[3]) end
  return tokens or ''
end

local reason, idle = tonumber(ARGV[1]), tonumber(ARGV[3])
local r, state = load_record(KEYS[1])
if not r then
  if state == 'malformed' then return { 4 } end
  if ARGV[2] == '1' then
    redis.call('SET', KEYS[1], struct.pack('<BI6B', 69, ms, reason), 'PX', 60000)
  end
  return { 0 }
end
local user = r.texts[USER]
if r[ENDED] > 0 then
  -- A write in any case: `WAIT` confirms the connection's writes only.
  local expires_at = string.format('%.0f', math.max(r[EXPIRES], r[ENDED] + hour))
  redis.call('PEXPIREAT', KEYS[1], expires_at)
  return { 2, user }
end
if ms >= r[EXPIRES] then return { 3, user, drop_tokens() } end
if is_idle(r, idle, load_use(KEYS[2]).last) then
  r[EXPIRES] = ms
  save_record(KEYS[1], r)
  return { 5, user, drop_tokens() }
end
if reason == 0 then return { 6 } end
r[ENDED], r[REASON] = ms, reason
local expires_at = string.format('%.0f', math.max(r[EXPIRES], ms + hour))
redis.call('SET', KEYS[1], encode_record(r), 'PXAT', expires_at)
redis.call('PEXPIREAT', KEYS[2], expires_at)
return { 1, user, drop_tokens() }
