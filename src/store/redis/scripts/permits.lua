-- Spends what a gateway asks for, of a counter that look() found to admit one more, as far as it is
-- fair: what the gateway holds then is one part of what is left, or 1. Tells how many that are.
local function grant(c, want, held, parts)
  local told = {}
  report(told, 1, c)
  local fair = math.floor(told[2] / parts) - held
  local granted = math.max(math.min(want, fair), held == 0 and 1 or 0)
  if granted > 0 then spend(c, granted) end
  return granted
end

-- The moment by which a counter dates what is spent now, in microseconds.
local function as_of(c)
  if c.kind == 'l' then return c.now end
  if c.kind == 'b' then return c.at * 1000 end
  return (c.index * c.width + c.offset) * 1000
end
