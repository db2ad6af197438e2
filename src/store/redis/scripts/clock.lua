-- Time is this server's, in microseconds: every gateway shares it, whatever its own clock says.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
