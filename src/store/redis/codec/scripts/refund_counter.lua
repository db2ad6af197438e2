-- Takes requests back from a counter that was looked at, which were spent as of that microsecond.
local function give_back(c, n, at)
  if c.kind == 'l' then
    -- The oldest go: whichever were meant, those that stay are no older.
    n = math.min(n, c.count)
    if n > 0 and at + c.width * 1000 > c.now then
      redis.call('LPOP', c.key, n)
      c.count = c.count - n
    end
    return
  end
  if c.kind == 'b' then
    -- What may have drained since is not given back a second time.
    local drained = math.max(c.at - math.floor(at / 1000), 0) * c.limit
    c.level = math.max(c.level - math.max(n * c.width - drained, 0), 0)
  else
    -- From the window that it was spent in; what was spent just before a turn is not in the current one.
    local window = math.floor(math.floor(at / 1000) / c.width)
    if window >= c.index then
      local here = math.min(n, c.current)
      c.current, n = c.current - here, n - here
    end
    if window + 1 >= c.index then c.previous = math.max(c.previous - n, 0) end
  end
  -- All of it: the window before may have changed.
  keep(c, c.current)
end
