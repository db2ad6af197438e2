-- A session's record: one string that src/store/redis/record.rs describes and reads as well. Needs
-- `ms`. How it is used is another string under a key of its own (see use.lua).
--   open(key)            the record at a key; else nil, and why: 'missing', 'marked', 'malformed'
--   save(key, r)         writes it back; the key lives as long as before
--   raw(r)               the record as it is written
--   alive(r, idle, last) whether it has neither ended nor expired
-- A mark is the string of a session that was ended before it was written.
local hour = 3600000

local layout = '<BI6I6I6BI4I2I2I2I2I2I2I2I2I2I2B'
local fixed = 45
-- Places among the numbers; the lengths of the texts are from 7 to 16.
local CREATED, EXPIRES, ENDED, REASON, REVISION, FLAGS = 2, 3, 4, 5, 6, 17
-- Places among the texts.
local USER, EMAIL, NAME, ROLES, SCOPES, DEVICE, DATA = 1, 2, 3, 4, 5, 9, 10
-- Which texts are there, for those of which an empty one is something else than none.
local HAS_NAME, HAS_DEVICE = 1, 4

-- What a key holds; nil if there is none, false if it is of another type.
local function content(key)
  local text = redis.pcall('GET', key)
  if type(text) == 'table' then
    if string.sub(text.err, 1, 9) ~= 'WRONGTYPE' then error(text) end
    return false
  end
  return text or nil
end

local function open(key)
  local text = content(key)
  if text == nil then return nil, 'missing' end
  local tag = text and string.byte(text)
  if tag == 69 then return nil, 'marked', text end
  if tag ~= 83 or #text < fixed then return nil, 'malformed' end
  local r = { struct.unpack(layout, text) }
  local texts, at = {}, fixed + 1
  for n = 1, 10 do
    texts[n] = string.sub(text, at, at + r[6 + n] - 1)
    at = at + r[6 + n]
  end
  if at ~= #text + 1 then return nil, 'malformed' end
  r.texts = texts
  return r
end

local function raw(r)
  for n = 1, 10 do r[6 + n] = #r.texts[n] end
  return struct.pack(layout, unpack(r, 1, 17)) .. table.concat(r.texts)
end

local function save(key, r) redis.call('SET', key, raw(r), 'KEEPTTL') end

local function has(r, flag) return math.floor(r[FLAGS] / flag) % 2 == 1 end

-- Sets a text that may be absent (nil).
local function put(r, place, flag, text)
  r.texts[place] = text or ''
  if has(r, flag) then r[FLAGS] = r[FLAGS] - flag end
  if text then r[FLAGS] = r[FLAGS] + flag end
end

local function idle_for_too_long(r, idle, last)
  return idle > 0 and ms >= math.max(last, r[CREATED]) + idle
end

local function alive(r, idle, last)
  return r[ENDED] == 0 and ms < r[EXPIRES] and not idle_for_too_long(r, idle, last)
end
