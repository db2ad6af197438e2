-- A session's record: one string that src/store/redis/record.rs describes and reads as well. Needs
-- `now` in microseconds.
--   open(key)      the record at a key; else nil, and why: 'missing', 'marked', 'malformed'
--   save(key, r)   writes it back; the key lives as long as before
--   raw(r)         the record as it is written
--   alive(r, idle) whether it has neither ended nor expired
--   use(r, ...)    adds to its use
-- A mark is the string of a session that was ended before it was written.
local ms = math.floor(now / 1000)
local hour = 3600000

local layout = '<BI6I6I6BI4I6I6I2I2I2I2I2I2I2I2I2I2I2I2B'
local fixed = 61
-- Places among the numbers; the lengths of the texts are from 9 to 20.
local CREATED, EXPIRES, ENDED, REASON, REVISION, LAST, COUNT, FLAGS = 2, 3, 4, 5, 6, 7, 8, 21
-- Places among the texts.
local USER, EMAIL, NAME, ROLES, SCOPES, DEVICE, DATA, IPS, REFRESH = 1, 2, 3, 4, 5, 9, 10, 11, 12
-- Which texts are there, for those of which an empty one is something else than none.
local HAS_NAME, HAS_DEVICE = 1, 4

local function open(key)
  local text = redis.pcall('GET', key)
  if not text then return nil, 'missing' end
  if type(text) == 'table' then
    if string.sub(text.err, 1, 9) ~= 'WRONGTYPE' then error(text) end
    return nil, 'malformed'
  end
  local tag = string.byte(text)
  if tag == 69 then return nil, 'marked', text end
  if tag ~= 83 or #text < fixed then return nil, 'malformed' end
  local r = { struct.unpack(layout, text) }
  local texts, at = {}, fixed + 1
  for n = 1, 12 do
    texts[n] = string.sub(text, at, at + r[8 + n] - 1)
    at = at + r[8 + n]
  end
  if at ~= #text + 1 then return nil, 'malformed' end
  r.texts = texts
  return r
end

local function raw(r)
  for n = 1, 12 do r[8 + n] = #r.texts[n] end
  return struct.pack(layout, unpack(r, 1, 21)) .. table.concat(r.texts)
end

local function save(key, r) redis.call('SET', key, raw(r), 'KEEPTTL') end

local function has(r, flag) return math.floor(r[FLAGS] / flag) % 2 == 1 end

-- Sets a text that may be absent (nil).
local function put(r, place, flag, text)
  r.texts[place] = text or ''
  if has(r, flag) then r[FLAGS] = r[FLAGS] - flag end
  if text then r[FLAGS] = r[FLAGS] + flag end
end

local function idle_for_too_long(r, idle)
  return idle > 0 and ms >= math.max(r[LAST], r[CREATED]) + idle
end

local function alive(r, idle)
  return r[ENDED] == 0 and ms < r[EXPIRES] and not idle_for_too_long(r, idle)
end

-- Addresses are written each with its length in front, the newest first, at most ten.
local function use(r, requests, last, address)
  r[LAST] = math.max(r[LAST], last)
  r[COUNT] = r[COUNT] + requests
  local known, at, kept = r.texts[IPS], 1, 1
  local ips = string.char(#address) .. address
  while at <= #known and kept < 10 do
    local length = string.byte(known, at)
    local one = string.sub(known, at + 1, at + length)
    if one ~= address then
      ips, kept = ips .. string.char(length) .. one, kept + 1
    end
    at = at + length + 1
  end
  r.texts[IPS] = ips
end
