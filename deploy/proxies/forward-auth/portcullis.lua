-- Forward auth by Portcullis for HAProxy 2.6 or later. haproxy.cfg, beside this file, has an example.
--
--   http-request lua.portcullis URL NAMES     asks the gateway at URL about the request. Allowed: the headers in
--                                             NAMES, a list with commas, become those that the gateway returned.
--                                             Otherwise the gateway's response is sent to the client.
--   http-response lua.portcullis_response     adds what the gateway returned for the client of an allowed request.

local TIMEOUT_MS = 10000

-- Copied to the request besides NAMES.
local TO_BACKEND = { "x-portcullis-assertion", "x-request-id", "cookie", "authorization" }

-- Copied to the response of an allowed request in place of the backend's.
local TO_CLIENT = {
    "x-request-id", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit-policy", "ratelimit",
}

-- Of the request's connection or body, or said by this file itself.
local NOT_SENT = {
    ["host"] = true, ["connection"] = true, ["keep-alive"] = true, ["proxy-connection"] = true, ["te"] = true,
    ["trailer"] = true, ["transfer-encoding"] = true, ["content-length"] = true, ["upgrade"] = true,
    ["expect"] = true, ["x-forwarded-method"] = true, ["x-forwarded-uri"] = true,
}

-- Of the connection to the gateway.
local NOT_RETURNED = {
    ["connection"] = true, ["keep-alive"] = true, ["transfer-encoding"] = true, ["content-length"] = true,
}

-- The values of a header; HAProxy counts them from 0.
local function values_of(headers, name)
    local list, values = headers[name], {}
    if list ~= nil then
        local index = list[0] ~= nil and 0 or 1
        while list[index] ~= nil do
            values[#values + 1] = list[index]
            index = index + 1
        end
    end
    return values
end

local function original_request(txn)
    local sent = {}
    for name, _ in pairs(txn.http:req_get_headers()) do
        if not NOT_SENT[name] then
            sent[name] = values_of(txn.http:req_get_headers(), name)
        end
    end
    sent["x-forwarded-method"] = { txn.sf:method() }
    sent["x-forwarded-uri"] = { txn.sf:pathq() }
    return sent
end

local function reject(txn, response)
    local reply = txn:reply({ status = response.status, body = response.body })
    for name, _ in pairs(response.headers) do
        if not NOT_RETURNED[name] then
            for _, value in ipairs(values_of(response.headers, name)) do
                reply:add_header(name, value)
            end
        end
    end
    txn:done(reply)
end

-- Without a verdict nothing passes.
local function reject_unknown(txn)
    local reply = txn:reply({ status = 503 })
    reply:add_header("retry-after", "1")
    reply:add_header("cache-control", "no-store")
    txn:done(reply)
end

local function set_request_header(txn, headers, name)
    txn.http:req_del_header(name)
    for _, value in ipairs(values_of(headers, name)) do
        if value ~= "" then
            txn.http:req_add_header(name, value)
        end
    end
end

core.register_action("portcullis", { "http-req" }, function(txn, url, names)
    txn:set_priv(nil)
    local response = core.httpclient():get({ url = url, headers = original_request(txn), timeout = TIMEOUT_MS })
    -- A response without the code is not the gateway's: HAProxy itself says so that it does not reach it.
    if response == nil or response.headers == nil or response.headers["x-portcullis-code"] == nil then
        return reject_unknown(txn)
    end
    if response.status ~= 200 then
        return reject(txn, response)
    end
    for name in names:gmatch("[^,]+") do
        set_request_header(txn, response.headers, name:lower())
    end
    for _, name in ipairs(TO_BACKEND) do
        set_request_header(txn, response.headers, name)
    end
    txn:set_priv(response.headers)
end, 2)

core.register_action("portcullis_response", { "http-res" }, function(txn)
    local headers = txn:get_priv()
    if headers == nil then
        return
    end
    for _, name in ipairs(TO_CLIENT) do
        txn.http:res_del_header(name)
        for _, value in ipairs(values_of(headers, name)) do
            txn.http:res_add_header(name, value)
        end
    end
    for _, value in ipairs(values_of(headers, "set-cookie")) do
        txn.http:res_add_header("set-cookie", value)
    end
end)
