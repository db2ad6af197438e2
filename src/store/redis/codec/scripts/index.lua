-- Part of other scripts: a user's index, a hash of the user's sessions by the 32 bytes of their ids. A value
-- is the times of creation, expiry and end (0: not ended), six bytes each. Needs clock.lua.
local hour, kept = 3600000, 50

local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end

-- Extends the key's lifetime to at least this time.
local function extend_ttl(time)
  local ttl = redis.call('PTTL', KEYS[1])
  if ttl < 0 or ms + ttl < time then
    redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', time))
  end
end

local function by_age(a, b) return a.at < b.at or (a.at == b.at and a.id < b.id) end

-- Returns the active and the ended sessions, each oldest first, the number of dropped entries and the
-- number of active sessions. Entries past their retention and malformed ones are dropped. With `few`, at
-- most that many active sessions are listed: sorting thousands takes milliseconds.
local function sessions(few)
  local active, ended, dropped, count = {}, {}, {}, 0
  local function insert(session)
    local at = #active
    while at > 0 and by_age(session, active[at]) do
      active[at + 1] = active[at]
      at = at - 1
    end
    active[at + 1] = session
    active[few + 1] = nil
  end
  local all = redis.call('HGETALL', KEYS[1])
  for n = 1, #all, 2 do
    local id, value = all[n], all[n + 1]
    local created, expires, at = 0, 0, 0
    if #value == 18 then created, expires, at = struct.unpack('<I6I6I6', value) end
    local retained_until = at > 0 and math.max(expires, at + hour) or expires + hour
    if #id ~= 32 or ms >= retained_until then
      dropped[#dropped + 1] = id
    elseif at > 0 then
      ended[#ended + 1] = { id = id, at = at, created = created, expires = expires }
    elseif ms < expires then
      count = count + 1
      if not few then
        active[count] = { id = id, at = created, created = created, expires = expires }
      elseif #active < few or created <= active[few].created then
        insert({ id = id, at = created, created = created, expires = expires })
      end
    end
  end
  for n = 1, #dropped do redis.call('HDEL', KEYS[1], dropped[n]) end
  if not few then table.sort(active, by_age) end
  table.sort(ended, by_age)
  return active, ended, #dropped, count
end

local function add_entry(id, created, expires, ended)
  redis.call('HSET', KEYS[1], id, struct.pack('<I6I6I6', created, expires, ended))
end

-- Marks sessions as ended and keeps only the latest ended ones; returns the ids of the others.
local function retire(ids)
  local latest = ms + hour
  for _, id in ipairs(ids) do
    local value = redis.call('HGET', KEYS[1], id)
    if value and #value == 18 then
      local created, expires, at = struct.unpack('<I6I6I6', value)
      if at == 0 then
        add_entry(id, created, expires, ms)
        latest = math.max(latest, expires + hour)
      end
    end
  end
  if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
  extend_ttl(latest)
  local _, ended = sessions(1)
  local removed = {}
  for n = 1, #ended - kept do
    removed[n] = ended[n].id
    redis.call('HDEL', KEYS[1], ended[n].id)
  end
  return removed
end
