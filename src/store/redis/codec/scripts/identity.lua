-- How sessions and people stand. Needs `ms`.
--   standing(key, use, last, idle)  of the session under a key, whose latest known use is `last`: its status
--       (1 missing, 2 malformed, 3 expired, 4 revoked, 5 active), its last use, and, where it can be read,
--       its record (see record.lua) and the revision of that
--   cut_off_at(key)  the second up to which a person's tokens are refused; 0: none are

local function standing(key, use, last, idle)
  local record = redis.pcall('GET', key)
  if not record then return 1, 0 end
  if type(record) == 'table' then
    if string.sub(record.err, 1, 9) ~= 'WRONGTYPE' then error(record) end
    return 2, 0
  end
  -- Only what is needed is taken apart.
  local tag = string.byte(record)
  if tag == 69 then return 1, 0 end
  if tag ~= 83 or #record < 45 then return 2, 0 end
  local created, expires, ended, _, revision = struct.unpack('<I6I6I6BI4', record, 2)
  last = math.max(last, created)
  if ended > 0 then return 4, last, record, revision end
  if ms >= expires then return 3, last, record, revision end
  if idle > 0 and ms >= last + idle then
    -- Others may have used it since: its use is read only where that matters.
    local used = redis.pcall('GETRANGE', use, 0, 5)
    if type(used) == 'string' and #used == 6 then last = math.max(last, (struct.unpack('<I6', used))) end
    if ms >= last + idle then return 3, last, record, revision end
  end
  return 5, last, record, revision
end

local function cut_off_at(key)
  local second = redis.pcall('GET', key)
  second = type(second) == 'string' and tonumber(second)
  -- What others write here may be any number.
  if second and second >= 1 then return math.floor(math.min(second, 2 ^ 48)) end
  return 0
end
