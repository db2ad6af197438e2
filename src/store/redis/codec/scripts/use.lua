-- Part of other scripts: a session's use (latest use, requests, addresses, refresh tokens). It has its own
-- key, so that a use does not invalidate the record in the near caches. Needs record.lua.
--   load_use(key)               the use at a key; empty if it is missing or malformed
--   save_use(key, u, session)   writes it, with the TTL of the session's record
--   encode_use(u)               the use as a string
--   add_use(u, ...)             adds requests, a time and an address
local function load_use(key)
  local text = get_string(key)
  local u = { last = 0, count = 0, ips = '', refresh = '', exists = text ~= nil }
  if text and #text >= 13 then
    local last, count, length = struct.unpack('<I6I6B', text)
    if #text >= 13 + length then
      u.last, u.count = last, count
      u.ips, u.refresh = string.sub(text, 14, 13 + length), string.sub(text, 14 + length)
    end
  end
  return u
end

local function encode_use(u)
  return struct.pack('<I6I6B', u.last, u.count, #u.ips) .. u.ips .. u.refresh
end

local function save_use(key, u, session)
  if u.exists then
    redis.call('SET', key, encode_use(u), 'KEEPTTL')
  else
    redis.call('SET', key, encode_use(u), 'PX', math.max(redis.call('PTTL', session), 1))
  end
end

-- Addresses are encoded each with its length in front, newest first, at most ten.
local function add_use(u, requests, last, address)
  u.last = math.max(u.last, last)
  u.count = u.count + requests
  local previous, at, kept = u.ips, 1, 1
  local ips = string.char(#address) .. address
  while at <= #previous and kept < 10 do
    local length = string.byte(previous, at)
    local other = string.sub(previous, at + 1, at + length)
    if other ~= address then
      ips, kept = ips .. string.char(length) .. other, kept + 1
    end
    at = at + length + 1
  end
  u.ips = ips
end
