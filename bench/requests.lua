-- wrk script: sends requests with the tokens of a file in turn, and prints one line for bench/load.py:
-- requests, responses that are not 2xx or 3xx, microseconds, p50, p99, requests without response.
--   TOKENS   the file, one token per line; without it, requests have no credential
--   EVERY    use only every n-th token; with PORTS, each gateway has others
--   METHOD   instead of GET
--   PORTS    ports of gateways, separated by commas, as many as threads: each thread uses one of them
--   PAUSE    milliseconds between a response and the next request on its connection
--   ROUTES   the number of routes: request PATH0, PATH1, … instead of PATH
--   ONCE     use each token once, then print DONE
--   FIELDS   further header fields, separated by line feeds

local tokens, routes = os.getenv("TOKENS"), tonumber(os.getenv("ROUTES"))
local once, every = os.getenv("ONCE"), tonumber(os.getenv("EVERY")) or 1
local ports, pause = os.getenv("PORTS"), tonumber(os.getenv("PAUSE"))
local requests, lines = {}, nil
local next, sent, received = 0, 0, 0

local function format(token, number)
    local path = routes and wrk.path .. number % routes or nil
    local fields = {}
    for name, value in (os.getenv("FIELDS") or ""):gmatch("([^\n:]+): ([^\n]+)") do fields[name] = value end
    fields.Authorization = token and "Bearer " .. token
    return wrk.format(os.getenv("METHOD") or "GET", path, fields)
end

if ports then
    local addresses, started = {}, 0
    function setup(thread)
        if started == 0 then
            for port in ports:gmatch("%d+") do addresses[#addresses + 1] = wrk.lookup("127.0.0.1", port)[1] end
        end
        thread.addr = addresses[started % #addresses + 1]
        thread:set("first", started % every)
        started = started + 1
    end
end

if pause then
    function delay() return pause end
end

function init()
    if once then
        lines = io.lines(tokens)
        return
    end
    local number = 0
    if tokens then
        for token in io.lines(tokens) do
            if number % every == (first or 0) then requests[#requests + 1] = format(token, #requests) end
            number = number + 1
        end
    else
        requests[1] = format()
    end
    -- All routes are requested equally often.
    for more = #requests, (routes or 0) - 1 do
        requests[#requests + 1] = requests[more % #requests + 1]:gsub("^(GET %S-)%d+ ", "%1" .. more .. " ", 1)
    end
end

local function each()
    next = next % #requests + 1
    return requests[next]
end

local last
local function from_file()
    local token = lines and lines()
    if token then
        last = format(token, 0)
        sent = sent + 1
    else
        lines = nil
    end
    return last
end

request = once and from_file or each

if once then
    function response()
        received = received + 1
        if not lines and received >= sent then
            wrk.thread:stop()
            -- wrk sleeps until its duration is over, unless it is interrupted.
            io.stdout:write("DONE\n")
            io.stdout:flush()
        end
    end
end

function done(summary, latency)
    io.write(string.format("RESULT %d %d %d %.0f %.0f %d\n", summary.requests, summary.errors.status,
        summary.duration, latency:percentile(50), latency:percentile(99),
        summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
