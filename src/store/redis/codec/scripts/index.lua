-- A user's index: a hash of the user's sessions, by the 32 bytes of their ids. A value is when it was
-- made, when it expires and when it ended (0: it has not), six bytes each. Needs `ms`.
local hour, kept = 3600000, 50

local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end

-- The key lives at least until `moment`.
local function outlive(moment)
  local ttl = redis.call('PTTL', KEYS[1])
  if ttl < 0 or ms + ttl < moment then
    redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', moment))
  end
end

local function by_age(a, b) return a.at < b.at or (a.at == b.at and a.id < b.id) end

-- Those alive and those ended, the oldest first of each; drops what has had its time, and what is not
-- understood. Tells how many were dropped, and how many are alive. Where `few` is given, only so many of
-- those alive are listed: to sort thousands takes milliseconds.
local function sessions(few)
  local alive, ended, dropped, count = {}, {}, {}, 0
  local function list(one)
    local at = #alive
    while at > 0 and by_age(one, alive[at]) do
      alive[at + 1] = alive[at]
      at = at - 1
    end
    alive[at + 1] = one
    alive[few + 1] = nil
  end
  local all = redis.call('HGETALL', KEYS[1])
  for n = 1, #all, 2 do
    local id, value = all[n], all[n + 1]
    local created, expires, at = 0, 0, 0
    if #value == 18 then created, expires, at = struct.unpack('<I6I6I6', value) end
    local over = at > 0 and math.max(expires, at + hour) or expires + hour
    if #id ~= 32 or ms >= over then
      dropped[#dropped + 1] = id
    elseif at > 0 then
      ended[#ended + 1] = { id = id, at = at, created = created, expires = expires }
    elseif ms < expires then
      count = count + 1
      if not few then
        alive[count] = { id = id, at = created, created = created, expires = expires }
      elseif #alive < few or created <= alive[few].created then
        list({ id = id, at = created, created = created, expires = expires })
      end
    end
  end
  for n = 1, #dropped do redis.call('HDEL', KEYS[1], dropped[n]) end
  if not few then table.sort(alive, by_age) end
  table.sort(ended, by_age)
  return alive, ended, #dropped, count
end

local function enter(id, created, expires, ended)
  redis.call('HSET', KEYS[1], id, struct.pack('<I6I6I6', created, expires, ended))
end

-- Moves sessions to those ended, of which only the latest are kept; gives the ids of the others.
local function retire(ids)
  local latest = ms + hour
  for _, id in ipairs(ids) do
    local value = redis.call('HGET', KEYS[1], id)
    if value and #value == 18 then
      local created, expires, at = struct.unpack('<I6I6I6', value)
      if at == 0 then
        enter(id, created, expires, ms)
        latest = math.max(latest, expires + hour)
      end
    end
  end
  if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
  outlive(latest)
  local _, ended = sessions(1)
  local forgotten = {}
  for n = 1, #ended - kept do
    forgotten[n] = ended[n].id
    redis.call('HDEL', KEYS[1], ended[n].id)
  end
  return forgotten
end
