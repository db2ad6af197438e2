-- How a session is used: latest use, requests, addresses, refresh tokens. It has a key of its own so
-- that use does not touch the record, which gateways remember. Needs record.lua.
--   used(key)                 what is there; nothing, or nonsense, is no use yet
--   keep(key, u, session)     writes it; it lives as long as the session's record
--   add(u, ...)               adds to it
local function used(key)
  local text = content(key)
  local u = { last = 0, count = 0, ips = '', refresh = '', there = text ~= nil }
  if text and #text >= 13 then
    local last, count, length = struct.unpack('<I6I6B', text)
    if #text >= 13 + length then
      u.last, u.count = last, count
      u.ips, u.refresh = string.sub(text, 14, 13 + length), string.sub(text, 14 + length)
    end
  end
  return u
end

local function written(u)
  return struct.pack('<I6I6B', u.last, u.count, #u.ips) .. u.ips .. u.refresh
end

local function keep(key, u, session)
  if u.there then
    redis.call('SET', key, written(u), 'KEEPTTL')
  else
    redis.call('SET', key, written(u), 'PX', math.max(redis.call('PTTL', session), 1))
  end
end

-- Addresses are written each with its length in front, the newest first, at most ten.
local function add(u, requests, last, address)
  u.last = math.max(u.last, last)
  u.count = u.count + requests
  local known, at, kept = u.ips, 1, 1
  local ips = string.char(#address) .. address
  while at <= #known and kept < 10 do
    local length = string.byte(known, at)
    local one = string.sub(known, at + 1, at + length)
    if one ~= address then
      ips, kept = ips .. string.char(length) .. one, kept + 1
    end
    at = at + length + 1
  end
  u.ips = ips
end
