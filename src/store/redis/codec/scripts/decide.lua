-- Decides a request: limits before authentication, session, blacklist, cut-off, requirements, limits
-- after authentication.
--
-- KEYS  counters of the limits before, counters of the limits after,
--       session and its use if ARGV[7] is 1, blacklist entry if ARGV[8] is 1, cut-off if ARGV[10] is 1
-- ARGV  1 number of limits before, 2 number of limits after, 3 idle timeout in ms (0: none),
--       4 latest use on the gateway in ms, 5 roles of which one is required, 6 scopes that are all
--       required, 7 and 8 as above, 9 revision that the gateway has cached (empty: none), 10 as above,
--       11 issue time of the token in seconds (empty: unknown);
--       then for each limit its rule (see counter in limit.lua), roles, except_roles
-- Reply, packed: now (µs), session status (0 not queried, 1 missing, 2 malformed, 3 expired, 4 revoked,
--       5 active), last use, 1 if blacklisted, cut-off in seconds (0: none), number of malformed
--       counters, number of evaluated limits; then the report of each of them, and the session's record
--       (empty: there is none, or the gateway has it)
--
-- Why a script: one round trip and one atomic step. If a limit refuses, nothing is spent. If the session,
-- the blacklist, the cut-off or the requirements reject the request, the limits before are spent.
local before, after = tonumber(ARGV[1]), tonumber(ARGV[2])
local status, last, blacklisted, cut_off, record_reply = 0, 0, 0, 0, ''

-- Returns whether one of the listed names is held (`present`: true) or is not held (`present`: false).
-- Lists are encoded as "\nadmin\neditor\n"; the empty list is "".
local function any(held, listed, present)
  if listed == '' then return false end
  for name in string.gmatch(listed, '[^\n]+') do
    local found = string.find(held, '\n' .. name .. '\n', 1, true) ~= nil
    if found == present then return true end
  end
  return false
end

-- Updates the counters of the limits in a range, and returns whether a limit refuses. Limits that do not
-- apply to the session's roles are skipped.
local function refused(from, to, roles)
  local refusal = false
  for n = from, to do
    local at = 12 + (n - 1) * 3
    local only = ARGV[at + 1]
    if roles and ((only ~= '' and not any(roles, only, true)) or any(roles, ARGV[at + 2], true)) then
      limits[n] = false
    elseif refuses(n, counter(KEYS[n], ARGV[at])) then
      refusal = true
    end
  end
  return refusal
end

local function reply(evaluated, spending)
  local reports = settle(evaluated, spending)
  return struct.pack('<I8BI8BI8I8I8', now, status, last, blacklisted, cut_off, broken, evaluated)
    .. reports .. record_reply
end

if refused(1, before) then return reply(before, false) end

local key, session, roles, scopes = before + after + 1, ARGV[7] == '1', nil, nil
if session then
  local record, revision
  status, last, record, revision =
    session_status(KEYS[key], KEYS[key + 1], tonumber(ARGV[4]), tonumber(ARGV[3]))
  if record and (status ~= 5 or ARGV[9] ~= tostring(revision)) then record_reply = record end
  if status == 5 and (after > 0 or ARGV[5] ~= '' or ARGV[6] ~= '') then
    -- The lengths of the first five texts, which begin at byte 46 (see record.lua).
    local user, email, name, roles_length, scopes_length = struct.unpack('<I2I2I2I2I2', record, 25)
    local at = 46 + user + email + name
    roles = string.sub(record, at, at + roles_length - 1)
    at = at + roles_length
    scopes = string.sub(record, at, at + scopes_length - 1)
  end
  key = key + 2
end
if ARGV[8] == '1' then
  blacklisted = redis.call('EXISTS', KEYS[key])
  key = key + 1
end
local is_cut_off = false
if ARGV[10] == '1' then
  cut_off = read_cut_off(KEYS[key])
  local issued = tonumber(ARGV[11])
  is_cut_off = cut_off > 0 and (not issued or issued <= cut_off)
end

if blacklisted == 1 or is_cut_off or (session and status ~= 5) then return reply(before, true) end
if session and ((ARGV[5] ~= '' and not any(roles, ARGV[5], true)) or any(scopes, ARGV[6], false)) then
  return reply(before, true)
end

local refusal = refused(before + 1, before + after, roles)
return reply(before + after, not refusal)
