-- The three algorithms over one counter `c` (key, kind, limit, width in ms, burst): the same
-- arithmetic as src/limits, in integers that a double holds exactly. Needs `now` in microseconds.
--   look(c)       brings the counter to now; c.wait is 0 if one more request is admitted
--   spend(c, n)   spends n requests, of which look() found that they are admitted
--   report(c)     what the counter says
-- A counter of the wrong type or with broken content is reset, and counted in `broken`.
--
-- A script builds its functions anew at each call: few and plain ones are what makes it quick.
local ms = math.floor(now / 1000)
local broken = 0

-- Keys outlive what they say by a second: the server dates expiry by when a script began, and
-- `now` is a little later.
local margin = 1000

-- A counter from its key and its rule: algorithm, shadow, limit, width, burst, packed.
local function counter(key, rule)
  local kind, shadow, limit, width, burst = struct.unpack('<c1BI8I8I8', rule)
  return {
    key = key, kind = kind, limit = limit, width = width, burst = burst, shadow = shadow == 1, wait = 0,
    -- a window's own, or a bucket's
    index = 0, offset = 0, previous = 0, current = 0, head = false, level = 0, at = 0,
  }
end

local function reset(c)
  broken = broken + 1
  redis.call('DEL', c.key)
end

-- sliding_window: "<number of the window> <admitted in the one before> <admitted in it>"
local function look_at_window(c, text)
  local limit, width = c.limit, c.width
  local index, offset, previous, current = math.floor(ms / width), ms % width, 0, 0
  if text then
    local head, seen, a, b = string.match(text, '^((%d+) (%d+) )(%d+)$')
    if head then
      seen, previous, current = tonumber(seen), tonumber(a), tonumber(b)
      if index <= seen then c.head = head end
      if index < seen then
        index, offset = seen, 0
      elseif index > seen then
        previous, current = index == seen + 1 and current or 0, 0
      end
    else
      reset(c)
    end
  end
  c.index, c.offset, c.previous, c.current = index, offset, previous, current
  if previous * (width - offset) + current * width + width > limit * width then
    local wait
    if current < limit then
      wait = width - math.floor((limit - current - 1) * width / math.max(previous, 1)) - offset
    else
      wait = (width - offset) + (width - math.floor((limit - 1) * width / current))
    end
    c.wait = wait * 1000
  end
end

-- sliding_log: a list of the microseconds of all admissions, oldest first.
local function look_at_log(c, newest)
  c.now, c.count = now, 0
  if not newest then return end
  c.newest = tonumber(newest)
  if not c.newest then return reset(c) end
  c.now = math.max(now, c.newest)
  local edge, gone = c.now - c.width * 1000, nil
  if (tonumber(redis.call('LINDEX', c.key, 0)) or 0) <= edge then
    repeat
      local batch = redis.call('LRANGE', c.key, 0, 99)
      gone = 0
      while gone < #batch and (tonumber(batch[gone + 1]) or 0) <= edge do gone = gone + 1 end
      redis.call('LTRIM', c.key, gone, -1)
    until gone < 100
  end
  c.count = redis.call('LLEN', c.key)
  if c.count >= c.limit then
    local blocking = tonumber(redis.call('LINDEX', c.key, c.count - c.limit)) or c.now
    c.wait = blocking + c.width * 1000 - c.now
  end
end

-- token_bucket: "<level> <as of which millisecond>"
local function look_at_bucket(c, text)
  local level, at = 0, 0
  if text then
    local a, b = string.match(text, '^(%d+) (%d+)$')
    if a then
      level, at = tonumber(a), tonumber(b)
    else
      reset(c)
    end
  end
  c.at = math.max(ms, at)
  c.level = math.max(level - (c.at - at) * c.limit, 0)
  c.wait = math.ceil(math.max(c.level + c.width - c.burst * c.width, 0) / c.limit) * 1000
end

local function look(c)
  local kind, content = c.kind, nil
  c.wait, c.head = 0, false
  if kind == 'l' then
    content = redis.pcall('LINDEX', c.key, -1)
  else
    content = redis.pcall('GET', c.key)
  end
  if type(content) == 'table' then
    if string.sub(content.err, 1, 9) ~= 'WRONGTYPE' then error(content) end
    reset(c)
    content = false
  end
  if kind == 'w' then
    look_at_window(c, content)
  elseif kind == 'l' then
    look_at_log(c, content)
  else
    look_at_bucket(c, content)
  end
end

-- Writes a window or a bucket. Within one window only the last number changes, and the key lives as
-- long as its first admission said: the rest is kept as it was read. Numbers of up to 14 digits are
-- written in full by `..`, those that are arguments by themselves of up to 17.
local function keep(c, spent)
  if c.kind == 'w' then
    if c.head and c.current > spent then
      redis.call('SET', c.key, c.head .. c.current, 'KEEPTTL')
    else
      redis.call('SET', c.key, c.index .. ' ' .. c.previous .. ' ' .. c.current,
        'PX', 2 * c.width - c.offset + margin)
    end
  else
    redis.call('SET', c.key, string.format('%.0f %.0f', c.level, c.at),
      'PX', math.ceil(c.level / c.limit) + margin)
  end
end

local function spend(c, n)
  if c.kind == 'l' then
    local left, times = n, { c.now }
    while left > 0 do
      for i = #times + 1, math.min(left, 1000) do times[i] = c.now end
      redis.call('RPUSH', c.key, unpack(times, 1, math.min(left, 1000)))
      left = left - #times
    end
    redis.call('PEXPIRE', c.key, c.width + margin)
    c.count, c.newest = c.count + n, c.now
    return
  end
  if c.kind == 'w' then
    c.current = c.current + n
  else
    c.level = c.level + n * c.width
  end
  keep(c, n)
end

-- What a counter says, packed: admitted, how many more would be, microseconds until nothing counts,
-- and until a retry.
local function report(c)
  local width, left, whole = c.width, 0, 0
  if c.kind == 'w' then
    local used = c.previous * (width - c.offset) + c.current * width
    left = math.floor(math.max(c.limit * width - used, 0) / width)
    if c.current > 0 then
      whole = 2 * width - c.offset
    elseif c.previous > 0 then
      whole = width - c.offset
    end
    whole = whole * 1000
  elseif c.kind == 'l' then
    left = math.max(c.limit - c.count, 0)
    if c.count > 0 then whole = c.newest + width * 1000 - c.now end
  else
    left = math.floor(math.max(c.burst * width - c.level, 0) / width)
    whole = math.ceil(c.level / c.limit) * 1000
  end
  return struct.pack('<BI8I8I8', c.wait == 0 and 1 or 0, left, whole, c.wait)
end
