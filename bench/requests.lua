-- wrk script: sends the tokens of the file that TOKENS names in turn, if there is one, and prints
-- one line that bench/run reads: requests, answers that were no success, microseconds, p50, p99.

local requests = {}
local next = 0

function init()
    local file = os.getenv("TOKENS")
    if not file then
        requests[1] = wrk.format("GET")
        return
    end
    for token in io.lines(file) do
        requests[#requests + 1] = wrk.format("GET", nil, { Authorization = "Bearer " .. token })
    end
end

function request()
    next = next % #requests + 1
    return requests[next]
end

function done(summary, latency)
    io.write(string.format("RESULT %d %d %d %.0f %.0f %d\n", summary.requests, summary.errors.status,
        summary.duration, latency:percentile(50), latency:percentile(99),
        summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
