-- Part of other scripts: a session's record, one string that src/store/redis/codec/record/ encodes as
-- well. Its use is another string at its own key (see use.lua). Needs clock.lua.
--   load_record(key)         the record at a key; else nil, and why: 'missing', 'tombstone', 'malformed'
--   save_record(key, r)      writes it back with the same TTL
--   encode_record(r)         the record as a string
--   is_active(r, idle, last) whether it has neither ended nor expired
-- A tombstone is the string of a session that was ended before it was written.
local hour = 3600000

local layout = '<BI6I6I6BI4I2I2I2I2I2I2I2I2I2I2B'
local fixed = 45
-- Indexes of the numbers; 7 to 16 are the lengths of the texts.
local CREATED, EXPIRES, ENDED, REASON, REVISION, FLAGS = 2, 3, 4, 5, 6, 17
-- Indexes of the texts.
local USER, EMAIL, NAME, ROLES, SCOPES, DEVICE, DATA = 1, 2, 3, 4, 5, 9, 10
-- Flags of texts for which an empty one differs from an absent one.
local HAS_NAME, HAS_DEVICE = 1, 4
-- The record ends with the sign-in at a provider, which scripts only copy, as the text after the others.
local HAS_PROVIDER = 8

local function has(r, flag) return math.floor(r[FLAGS] / flag) % 2 == 1 end

-- The string at a key; nil if there is none, false if the key has another type.
local function get_string(key)
  local text = redis.pcall('GET', key)
  if type(text) == 'table' then
    if string.sub(text.err, 1, 9) ~= 'WRONGTYPE' then error(text) end
    return false
  end
  return text or nil
end

local function load_record(key)
  local text = get_string(key)
  if text == nil then return nil, 'missing' end
  local tag = text and string.byte(text)
  if tag == 69 then return nil, 'tombstone', text end
  if tag ~= 83 or #text < fixed then return nil, 'malformed' end
  local r = { struct.unpack(layout, text) }
  local texts, at = {}, fixed + 1
  for n = 1, 10 do
    texts[n] = string.sub(text, at, at + r[6 + n] - 1)
    at = at + r[6 + n]
  end
  if has(r, HAS_PROVIDER) ~= (at <= #text) or at > #text + 1 then return nil, 'malformed' end
  texts[11] = string.sub(text, at)
  r.texts = texts
  return r
end

local function encode_record(r)
  for n = 1, 10 do r[6 + n] = #r.texts[n] end
  return struct.pack(layout, unpack(r, 1, 17)) .. table.concat(r.texts)
end

local function save_record(key, r) redis.call('SET', key, encode_record(r), 'KEEPTTL') end

-- Sets a text that may be absent (nil).
local function set_text(r, index, flag, text)
  r.texts[index] = text or ''
  if has(r, flag) then r[FLAGS] = r[FLAGS] - flag end
  if text then r[FLAGS] = r[FLAGS] + flag end
end

local function is_idle(r, idle, last)
  return idle > 0 and ms >= math.max(last, r[CREATED]) + idle
end

local function is_active(r, idle, last)
  return r[ENDED] == 0 and ms < r[EXPIRES] and not is_idle(r, idle, last)
end
