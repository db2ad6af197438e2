-- The full work of an auth gateway in nginx, tuned by hand: verify an HS256 token (results are cached), then
-- check session, blacklist and one sliding window per user with one script in one round trip to Redis over a
-- kept-alive connection, and set limit headers and identity headers. bench/run measures it.

local cjson = require("cjson.safe")
local ffi = require("ffi")
local lrucache = require("resty.lrucache")

ffi.cdef([[
    const void *EVP_sha256(void);
    unsigned char *HMAC(const void *md, const void *key, int key_len, const unsigned char *data,
        size_t size, unsigned char *out, unsigned int *out_len);
    int CRYPTO_memcmp(const void *a, const void *b, size_t len);
]])

local LIMIT, WINDOW = 1000000000, 60
-- One script, so that the checks and the count are one atomic step.
local SCRIPT = [[
local user = redis.call('GET', KEYS[1])
if not user then return {0} end
if redis.call('EXISTS', KEYS[2]) == 1 then return {1} end
local time = redis.call('TIME')
local now, window = time[1] + time[2] / 1000000, tonumber(ARGV[2])
local number = math.floor(now / window)
local into = now - number * window
local counts = redis.call('HMGET', KEYS[3], number, number - 1)
local spent = (tonumber(counts[2]) or 0) * (1 - into / window) + (tonumber(counts[1]) or 0)
local reset = math.ceil(window - into)
if spent >= tonumber(ARGV[1]) then return {2, user, 0, reset} end
if not counts[1] then
    redis.call('DEL', KEYS[3])
    redis.call('HSET', KEYS[3], number - 1, counts[2] or 0, number, 1)
    redis.call('EXPIRE', KEYS[3], window * 2)
else
    redis.call('HINCRBY', KEYS[3], number, 1)
end
return {3, user, math.floor(tonumber(ARGV[1]) - spent - 1), reset}
]]

local mac, mac_length = ffi.new("unsigned char[32]"), ffi.new("unsigned int[1]")
local verdicts = assert(lrucache.new(100000))
local decode, find, sub, now = ngx.decode_base64, string.find, string.sub, ngx.time
local redis_port, secret, evalsha, eval

local gateway = {}

local function words(...)
    local out = { "*", select("#", ...), "\r\n" }
    for _, word in ipairs({ ... }) do
        out[#out + 1] = "$" .. #tostring(word) .. "\r\n" .. word .. "\r\n"
    end
    return table.concat(out)
end

-- The constant part of each command, encoded once; the keys follow.
local function opening(command, script)
    local whole = words(command, script, "3", "", "", "", LIMIT, WINDOW)
    return sub(whole, 1, select(2, find(whole, "$1\r\n3\r\n", 1, true)))
end
local closing = sub(words(LIMIT, WINDOW), 5)

function gateway.start(port, key)
    redis_port, secret = port, key
    local hash = ngx.sha1_bin(SCRIPT):gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
    evalsha = opening("EVALSHA", hash)
    eval = opening("EVAL", SCRIPT)
end

local function plain(text)
    text = text:gsub("-", "+"):gsub("_", "/")
    return decode(text .. ("="):rep(-#text % 4))
end

local function verify(token)
    local first = find(token, ".", 1, true)
    local second = first and find(token, ".", first + 1, true)
    if not second then return end
    local message, signature = sub(token, 1, second - 1), plain(sub(token, second + 1))
    ffi.C.HMAC(ffi.C.EVP_sha256(), secret, #secret, message, #message, mac, mac_length)
    if not signature or #signature ~= 32 or ffi.C.CRYPTO_memcmp(mac, signature, 32) ~= 0 then return end
    local header = cjson.decode(plain(sub(token, 1, first - 1)) or "")
    local claims = cjson.decode(plain(sub(token, first + 1, second - 1)) or "")
    if not header or header.alg ~= "HS256" or not claims then return end
    if claims.iss ~= "portcullis" or claims.aud ~= "portcullis" or not claims.sid or not claims.jti then return end
    -- The keys of the script, encoded once per token.
    local keys = ""
    for _, key in ipairs({ "bench:session:" .. claims.sid, "bench:black:" .. claims.jti, "bench:nginx:" .. claims.sub }) do
        keys = keys .. "$" .. #key .. "\r\n" .. key .. "\r\n"
    end
    return { sub = claims.sub, sid = claims.sid, exp = claims.exp, query = keys .. closing }
end

local function number(connection)
    return tonumber(sub(connection:receive() or "", 2))
end

local function read_reply(connection)
    local line = connection:receive()
    if not line or sub(line, 1, 1) ~= "*" then return nil, line end
    local verdict, user, left, reset = number(connection), nil, nil, nil
    if line == "*4" then
        user = connection:receive(number(connection) + 2)
        left, reset = number(connection), number(connection)
    end
    return { verdict = verdict, user = user and sub(user, 1, -3), left = left, reset = reset }
end

local function decide(claims)
    local connection = ngx.socket.tcp()
    connection:settimeout(1000)
    if not connection:connect("127.0.0.1", redis_port) then return end
    connection:send({ evalsha, claims.query })
    local reply, fault = read_reply(connection)
    if fault and find(fault, "NOSCRIPT", 1, true) then
        connection:send({ eval, claims.query })
        reply = read_reply(connection)
    end
    if reply then connection:setkeepalive(60000, 256) end
    return reply
end

function gateway.access()
    local presented = ngx.var.http_authorization
    if not presented or sub(presented, 1, 7) ~= "Bearer " then return ngx.exit(401) end
    local token = sub(presented, 8)
    local claims = verdicts:get(token)
    if not claims then
        claims = verify(token)
        if not claims then return ngx.exit(401) end
        verdicts:set(token, claims)
    end
    if now() >= claims.exp then return ngx.exit(401) end
    local decision = decide(claims)
    if not decision then return ngx.exit(503) end
    if decision.verdict < 2 then return ngx.exit(401) end
    local headers = ngx.header
    headers["RateLimit-Limit"] = LIMIT
    headers["RateLimit-Remaining"] = decision.left
    headers["RateLimit-Reset"] = decision.reset
    if decision.verdict == 2 then return ngx.exit(429) end
    local variables = ngx.var
    variables.user, variables.session = decision.user, claims.sid
end

return gateway
