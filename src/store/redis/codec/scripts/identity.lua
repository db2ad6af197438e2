-- Part of other scripts: reads sessions and cut-offs. Needs clock.lua.
--   session_status(key, use, last, idle)  status of the session at a key, whose latest use on the gateway
--       is `last` (1 missing, 2 malformed, 3 expired, 4 revoked, 5 active); its last use; and, if it is
--       readable, its record (see record.lua) and the record's revision
--   read_cut_off(key)  second up to which a user's tokens are rejected; 0: none

local function session_status(key, use, last, idle)
  local record = redis.pcall('GET', key)
  if not record then return 1, 0 end
  if type(record) == 'table' then
    if string.sub(record.err, 1, 9) ~= 'WRONGTYPE' then error(record) end
    return 2, 0
  end
  -- Decodes only the fields needed here.
  local tag = string.byte(record)
  if tag == 69 then return 1, 0 end
  if tag ~= 83 or #record < 45 then return 2, 0 end
  local created, expires, ended, _, revision = struct.unpack('<I6I6I6BI4', record, 2)
  last = math.max(last, created)
  if ended > 0 then return 4, last, record, revision end
  if ms >= expires then return 3, last, record, revision end
  if idle > 0 and ms >= last + idle then
    -- Other gateways may have used the session since. Their use is read only if it matters.
    local stored = redis.pcall('GETRANGE', use, 0, 5)
    if type(stored) == 'string' and #stored == 6 then
      last = math.max(last, (struct.unpack('<I6', stored)))
    end
    if ms >= last + idle then return 3, last, record, revision end
  end
  return 5, last, record, revision
end

local function read_cut_off(key)
  local second = redis.pcall('GET', key)
  second = type(second) == 'string' and tonumber(second)
  -- Other programs may write any number here.
  if second and second >= 1 then return math.floor(math.min(second, 2 ^ 48)) end
  return 0
end
