-- Limits of one request, decided together. Each is a counter that was looked at; `false`: one that
-- does not bind it.
local limits = {}

-- Takes note of a counter; tells whether it refuses the request.
local function refuses(n, c)
  look(c)
  limits[n] = c
  return c.wait > 0 and not c.shadow
end

-- Spends one request from each that admits it, if it is to be spent; gives what each of them says
-- (see report), 2 and three zeros for one that does not bind.
local function settle(to, spending)
  local said = ''
  for n = 1, to do
    local c = limits[n]
    if c then
      if spending and c.wait == 0 then spend(c) end
      said = said .. report(c)
    else
      said = said .. struct.pack('<BI8I8I8', 2, 0, 0, 0)
    end
  end
  return said
end
