-- Replaces the presented refresh token with its successor.
-- KEYS session, use
-- ARGV hash of the presented token, 1 if the token is authentic, hash of its successor, grace (ms), TTL of
-- the successor (ms), idle timeout (ms; 0: none), address of the client
-- Reply: {outcome, ms, record, use}; outcome 1 rotated, 2 replayed, 4 unknown, 5 expired, 6 the session has
-- ended; reused: 7 a recent predecessor, 8 an older ancestor, 9 the current token after an earlier reuse
-- Why a script: of concurrent requests with one token, one rotates it and the others replay.
--
-- The use holds: expiry of the current token, 1 if a token was reused, hash of the current token; then the
-- rotated tokens with the time of their rotation, oldest first: the latest one, and those within the grace
-- time before it, at most 64.
local presented, is_authentic, successor, grace = ARGV[1], ARGV[2] == '1', ARGV[3], tonumber(ARGV[4])
local r, u = load_record(KEYS[1]), load_use(KEYS[2])
local active = r and is_active(r, tonumber(ARGV[6]), u.last)
local refresh = r and u.refresh or ''

local function reply(outcome) return { outcome, ms, r and encode_record(r) or false, encode_use(u) } end
if #refresh < 23 then
  if not is_authentic then return reply(4) end
  if not active then return reply(6) end
  -- The session was restored from the database: the first authentic token is taken as the current one.
  refresh = struct.pack('<I6Bc16', r[EXPIRES], 0, presented)
end

local expires_at, reused, current = struct.unpack('<I6Bc16', refresh)
-- Each rotated token is followed by its successor; the last one by the current token.
local rotated, index = {}, nil
for at = 24, #refresh - 21, 22 do
  local hash, when = struct.unpack('<c16I6', refresh, at)
  if ms < when + grace or at + 22 > #refresh then
    rotated[#rotated + 1] = { hash, when }
    if hash == presented then index = #rotated end
  end
end
local is_current = presented == current
if not is_current and not index and not is_authentic then return reply(4) end
if not active then return reply(6) end

local function save_tokens()
  local parts = { struct.pack('<I6Bc16', expires_at, reused, current) }
  for n, token in ipairs(rotated) do parts[n + 1] = struct.pack('<c16I6', token[1], token[2]) end
  u.refresh = table.concat(parts)
  save_use(KEYS[2], u, KEYS[1])
end

if reused == 0 and is_current then
  if ms >= expires_at then return reply(5) end
  rotated[#rotated + 1] = { current, ms }
  if #rotated > 64 then table.remove(rotated, 1) end
  current, expires_at = successor, math.min(ms + tonumber(ARGV[5]), r[EXPIRES])
  add_use(u, 1, ms, ARGV[7])
  save_tokens()
  return reply(1)
end
if reused == 0 and index and ms < rotated[index][2] + grace then
  local following = rotated[index + 1] and rotated[index + 1][1] or current
  if following ~= successor then return reply(4) end
  add_use(u, 1, ms, ARGV[7])
  save_use(KEYS[2], u, KEYS[1])
  return reply(2)
end
reused = 1
save_tokens()
return reply(is_current and 9 or index and 7 or 8)
