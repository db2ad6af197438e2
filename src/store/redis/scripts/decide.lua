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
  -- The record as record.lua describes it; only what is needed is taken apart.
  local record = redis.pcall('GET', KEYS[key])
  local tag
  status = 5
  if not record then
    status = 1
  elseif type(record) == 'table' then
    if string.sub(record.err, 1, 9) ~= 'WRONGTYPE' then error(record) end
    status = 2
  else
    tag = string.byte(record)
    if tag == 69 then
      status = 1
    elseif tag ~= 83 or #record < 45 then
      status = 2
    end
  end
  if status == 5 then
    local created, expires, ended, _, revision = struct.unpack('<I6I6I6BI4', record, 2)
    local idle = tonumber(ARGV[3])
    last = math.max(tonumber(ARGV[4]), created)
    if ended > 0 then
      status = 4
    elseif ms >= expires then
      status = 3
    elseif idle > 0 and ms >= last + idle then
      -- Others may have used it since: its use is read only where that matters.
      local use = redis.pcall('GETRANGE', KEYS[key + 1], 0, 5)
      if type(use) == 'string' and #use == 6 then last = math.max(last, (struct.unpack('<I6', use))) end
      if ms >= last + idle then status = 3 end
    end
    if status ~= 5 or ARGV[9] ~= tostring(revision) then known = record end
    if status == 5 and (after > 0 or ARGV[5] ~= '' or ARGV[6] ~= '') then
      local user, email, name, held, may = struct.unpack('<I2I2I2I2I2', record, 25)
      local at = 46 + user + email + name
      roles = string.sub(record, at, at + held - 1)
      scopes = string.sub(record, at + held, at + held + may - 1)
    end
  end
  key = key + 2
end
if ARGV[8] == '1' then
  listed = redis.call('EXISTS', KEYS[key])
  key = key + 1
end
local cut = false
if ARGV[10] == '1' then
  local second = redis.pcall('GET', KEYS[key])
  second = type(second) == 'string' and tonumber(second)
  -- What others write here may be any number.
  if second and second >= 1 then
    local issued = tonumber(ARGV[11])
    cut_off = math.floor(math.min(second, 2 ^ 48))
    cut = not issued or issued <= second
  end
end

if listed == 1 or cut or (session and status ~= 5) then return reply(before, true) end
if session and ((ARGV[5] ~= '' and not any(roles, ARGV[5], true)) or any(scopes, ARGV[6], false)) then
  return reply(before, true)
end

local refusal = refused(before + 1, before + after, roles)
return reply(before + after, not refusal)
