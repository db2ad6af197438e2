-- Puts the successor in the place of the refresh token presented; of those who present the same one
-- at once, one rotates and the others replay. One step, for else two would both see it as current.
-- KEYS session, use · ARGV hash presented, 1 if it bears our mark, hash of its successor, grace (ms), how
-- long the successor lasts (ms), idle timeout (ms, 0: none), address of who presents it
-- reply {outcome, ms, record, use}: 1 rotated, 2 replayed, 4 unknown, 5 expired, 6 the session is gone;
-- reused: 7 a recent predecessor, 8 an older ancestor, 9 the current one after another had come back
-- In the use: when the current one ends, 1 if one has come back, the current one; then the latest
-- that was rotated and those rotated within the grace time before it, 64 altogether at most, and when;
-- the oldest first.
local presented, ours, successor, grace = ARGV[1], ARGV[2] == '1', ARGV[3], tonumber(ARGV[4])
local r, u = open(KEYS[1]), used(KEYS[2])
local lives = r and alive(r, tonumber(ARGV[6]), u.last)
local refresh = r and u.refresh or ''

local function answer(outcome) return { outcome, ms, r and raw(r) or false, written(u) } end
if #refresh < 23 then
  if not ours then return answer(4) end
  if not lives then return answer(6) end
  -- The session was brought back from elsewhere: the first of ours that comes is taken for current.
  refresh = struct.pack('<I6Bc16', r[EXPIRES], 0, presented)
end

local till, reused, current = struct.unpack('<I6Bc16', refresh)
-- What followed each token that is known: the next in the list, the last one by the current one.
local rotated, place = {}, nil
for at = 24, #refresh - 21, 22 do
  local hash, when = struct.unpack('<c16I6', refresh, at)
  if ms < when + grace or at + 22 > #refresh then
    rotated[#rotated + 1] = { hash, when }
    if hash == presented then place = #rotated end
  end
end
local is_current = presented == current
if not is_current and not place and not ours then return answer(4) end
if not lives then return answer(6) end

local function keep_all()
  local parts = { struct.pack('<I6Bc16', till, reused, current) }
  for n, one in ipairs(rotated) do parts[n + 1] = struct.pack('<c16I6', one[1], one[2]) end
  u.refresh = table.concat(parts)
  keep(KEYS[2], u, KEYS[1])
end

if reused == 0 and is_current then
  if ms >= till then return answer(5) end
  rotated[#rotated + 1] = { current, ms }
  if #rotated > 64 then table.remove(rotated, 1) end
  current, till = successor, math.min(ms + tonumber(ARGV[5]), r[EXPIRES])
  add(u, 1, ms, ARGV[7])
  keep_all()
  return answer(1)
end
if reused == 0 and place and ms < rotated[place][2] + grace then
  local following = rotated[place + 1] and rotated[place + 1][1] or current
  if following ~= successor then return answer(4) end
  add(u, 1, ms, ARGV[7])
  keep(KEYS[2], u, KEYS[1])
  return answer(2)
end
reused = 1
keep_all()
return answer(is_current and 9 or place and 7 or 8)
