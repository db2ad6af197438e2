-- Part of other scripts: refunds `n` requests, spent at `at` (µs), to an updated counter (see limit.lua).
local function refund(c, n, at)
  if c.kind == 'l' then
    -- The oldest are dropped: whichever are refunded, the remaining ones are no older.
    n = math.min(n, c.count)
    if n > 0 and at + c.width * 1000 > c.now then
      redis.call('LPOP', c.key, n)
      c.count = c.count - n
    end
    return
  end
  if c.kind == 'b' then
    -- The amount that may have drained since is not refunded.
    local drained = math.max(c.at - math.floor(at / 1000), 0) * c.limit
    c.level = math.max(c.level - math.max(n * c.width - drained, 0), 0)
  else
    -- To the window in which they were spent: shortly after a boundary, the previous one.
    local window = math.floor(math.floor(at / 1000) / c.width)
    if window >= c.index then
      local refunded = math.min(n, c.current)
      c.current, n = c.current - refunded, n - refunded
    end
    if window + 1 >= c.index then c.previous = math.max(c.previous - n, 0) end
  end
  -- Written as a whole: the previous window may have changed.
  store(c, c.current)
end
