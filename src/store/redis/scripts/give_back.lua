-- Takes one request back from a counter that was looked at.
local function give_back(c)
  if c.kind == 'l' then
    -- The oldest goes: whichever was meant, those that stay are no older.
    if c.count > 0 then
      redis.call('LPOP', c.key)
      c.count = c.count - 1
    end
    return
  end
  if c.kind == 'b' then
    c.level = math.max(c.level - c.width, 0)
  elseif c.current > 0 then
    c.current = c.current - 1
  else
    c.previous = math.max(c.previous - 1, 0)
  end
  keep(c, 1)
end
