-- Everything that one request needs to know, in one round trip and one atomic step: the limits that
-- need no identity, the session, the blacklist, the requirements, the limits with identity.
--
-- KEYS  counters of the limits before, counters of the limits after,
--       session and its use if ARGV[7] is 1, blacklist entry if ARGV[8] is 1, cut-off if ARGV[10] is 1
-- ARGV  1 limits before, 2 limits after, 3 idle timeout in ms (0: none), 4 last use known, in ms,
--       5 roles of which one is required, 6 scopes which are all required, 7 and 8 as above,
--       9 the revision of the session that the caller has (empty: none), 10 as above, 11 when the
--       token was issued, in seconds (empty: nobody knows);
--       then for each limit its rule (see counter), roles, except_roles
-- reply, packed: now in microseconds, session status (0 not asked, 1 missing, 2 malformed, 3 expired,
--       4 revoked, 5 active), last use, 1 if blacklisted, cut-off in seconds (0: none), counters that
--       were broken, how many limits were evaluated; then what each of them says, and the session's
--       record (empty: there is none, or the caller has it)
--
-- Nothing at all is spent when a limit refuses. The limits before are spent when the session, the
-- blacklist or the requirements end the request.
local before, after = tonumber(ARGV[1]), tonumber(ARGV[2])
local status, last, listed, cut_off, known = 0, 0, 0, 0, ''

-- Lists are written "\nadmin\neditor\n"; the empty list is "". Tells whether one of those wanted is
-- held (`enough`: true), or whether one is not (`enough`: false).
local function any(held, wanted, enough)
  if wanted == '' then return false end
  for name in string.gmatch(wanted, '[^\n]+') do
    local there = string.find(held, '\n' .. name .. '\n', 1, true) ~= nil
    if there == enough then return true end
  end
  return false
end

-- Looks at the counters of the limits from one to another; roles are those of the session, if there
-- is one. Tells whether a limit refuses.
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
  local said = settle(evaluated, spending)
  return struct.pack('<I8BI8BI8I8I8', now, status, last, listed, cut_off, broken, evaluated) .. said .. known
end

if refused(1, before) then return reply(before, false) end

local key, session, roles, scopes = before + after + 1, ARGV[7] == '1', nil, nil
if session then
  local record, revision
  status, last, record, revision = standing(KEYS[key], KEYS[key + 1], tonumber(ARGV[4]), tonumber(ARGV[3]))
  if record and (status ~= 5 or ARGV[9] ~= tostring(revision)) then known = record end
  if status == 5 and (after > 0 or ARGV[5] ~= '' or ARGV[6] ~= '') then
    local user, email, name, held, may = struct.unpack('<I2I2I2I2I2', record, 25)
    local at = 46 + user + email + name
    roles = string.sub(record, at, at + held - 1)
    scopes = string.sub(record, at + held, at + held + may - 1)
  end
  key = key + 2
end
if ARGV[8] == '1' then
  listed = redis.call('EXISTS', KEYS[key])
  key = key + 1
end
local cut = false
if ARGV[10] == '1' then
  cut_off = cut_off_at(KEYS[key])
  local issued = tonumber(ARGV[11])
  cut = cut_off > 0 and (not issued or issued <= cut_off)
end

if listed == 1 or cut or (session and status ~= 5) then return reply(before, true) end
if session and ((ARGV[5] ~= '' and not any(roles, ARGV[5], true)) or any(scopes, ARGV[6], false)) then
  return reply(before, true)
end

local refusal = refused(before + 1, before + after, roles)
return reply(before + after, not refusal)
