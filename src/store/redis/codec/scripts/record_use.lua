-- Adds uses to sessions; missing sessions are skipped.
-- KEYS for each session: session, use
-- ARGV for each session: requests, last use (ms), address
-- Reply: number of sessions that exist
-- Why a script: uses of several gateways are added up.
local existing = 0
for at = 1, #KEYS / 2 do
  local session, key = KEYS[2 * at - 1], KEYS[2 * at]
  local u = load_use(key)
  if u.exists or redis.call('EXISTS', session) == 1 then
    add_use(u, tonumber(ARGV[3 * at - 2]), tonumber(ARGV[3 * at - 1]), ARGV[3 * at])
    save_use(key, u, session)
    existing = existing + 1
  end
end
return existing
