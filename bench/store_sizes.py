"""Measures the memory that sessions, limits and revocations take in Redis.

Each kind of entry is created by the gateway, or as docs/redis-keys.md documents it, and then copied many times
within Redis; the size is the growth of Redis' memory per copy, with everything that Redis allocates for a key.
"""

import re
import time

import gateway
import subjects
from api_client import ApiClient
from redis_client import Redis

COPIES = 20_000
PREFIX = "portcullis:"
# The database of the copies; the gateway uses 0.
DATABASE = 1
LIMITS = {
    "window": {"algorithm": "sliding_window"},
    "log": {"algorithm": "sliding_log"},
    "bucket": {"algorithm": "token_bucket"},
}
LOG_ENTRIES = 100
TOKEN_ID = "00000000-0000-4000-9000-000000000000"
PERSON = "00000000" * 4


def measure(bench, _options):
    """Returns the bytes of each kind of entry."""
    bench.upstream = bench.upstream or subjects.free_port()
    if "upstream" not in [process.name for process in bench.running]:
        bench.start_upstream()
    port, _ = bench.start_redis()
    with Redis(port) as redis:
        process, client = start(bench, port)
        created = {**sessions(client, redis), **limits(client, redis), **documented(redis)}
        events = redis.call("MEMORY", "USAGE", f"{PREFIX}events", "SAMPLES", 0)
        events /= redis.call("XLEN", f"{PREFIX}events")
        # Copies must not be reported to the gateway.
        bench.stop(process)
        sizes = {name: bytes_each(redis, keys) for name, keys in created.items()}
        return {**sizes, "security event": round(events)}


def start(bench, redis_port):
    """Starts a gateway with a route for each kind of limit; returns its process and a client."""
    configured = subjects.Gateway(bench.upstream, f"redis://127.0.0.1:{redis_port}")
    for name, rule in LIMITS.items():
        configured.config["limits"][name] = {**gateway.BY_USER, "limit": 1000, "window": "1h", **rule}
        configured.add_route(name, f"/{name}", "required", [name])
    process = bench.start_gateway(configured)
    return process, ApiClient(configured.port)


def sessions(client, redis):
    """Creates sessions in several states; returns the keys of each kind."""
    one = {}
    signed_in = create(redis, one, lambda: register(client, "one@example.com"))
    client.request("GET", "/known", signed_in["access_token"])
    wait_for_use(redis, one["use"][0])
    client.call("POST", "auth/refresh", body={"refresh_token": signed_in["refresh_token"]})
    create(redis, one, lambda: client.call("GET", "profile", signed_in["access_token"]))
    several = {}
    create(redis, several, lambda: [register(client, "five@example.com")] + [
        client.call("POST", "auth/login", body=user("five@example.com")) for _ in range(4)
    ])
    over = {}
    token = create(redis, over, lambda: register(client, "over@example.com"))["access_token"]
    client.call("POST", "auth/logout", token)
    left = redis.keys()
    return {
        "session record": one["session"],
        "session use and refresh tokens": one["use"],
        "index of a user with 1 session": one["user"],
        "index of a user with 5 sessions": several["user"],
        "cached profile": one["profile"],
        "ended session": [key for kind in ("session", "use") for key in over[kind] if key in left],
        "index of a user whose session has ended": over["user"],
    }


def limits(client, redis):
    """Creates counters; returns the key of each kind."""
    return {
        "sliding_window counter": counter(client, redis, "window", 1),
        "sliding_log counter, 1 admission": counter(client, redis, "log", 1),
        f"sliding_log counter, {LOG_ENTRIES} admissions": counter(client, redis, "log", LOG_ENTRIES),
        # A bucket that is full again has no key.
        "token_bucket counter": counter(client, redis, "bucket", LOG_ENTRIES),
    }


def counter(client, redis, name, requests):
    """Sends requests with a limit as a new user; returns the key of the counter."""
    token = register(client, f"{name}-{requests}@example.com")["access_token"]
    created = {}
    create(redis, created, lambda: [client.request("GET", f"/{name}", token) for _ in range(requests)])
    return created["limit"]


def documented(redis):
    """Creates entries in the documented form; returns the key of each kind."""
    names = {
        "blacklisted token": f"{PREFIX}blacklist:{TOKEN_ID}",
        "issued-before revocation": f"{PREFIX}cutoff:{PERSON}",
        "session with open WebSockets or streams, in addition": f"{PREFIX}live:{{{PERSON * 2}}}",
    }
    blacklisted, issued_before, live = names.values()
    redis.call("SET", blacklisted, 1, "EX", 3600)
    redis.call("SET", issued_before, int(time.time()), "EX", 3600)
    redis.call("HSET", live, "gateway-1.example.org-0123456789abcdef", f"1 {int(time.time() * 1000)}")
    redis.call("EXPIRE", live, 3600)
    return {name: [key.encode()] for name, key in names.items()}


def create(redis, created, action):
    """Adds the keys that an action creates, by kind; returns the result of the action."""
    before = redis.keys()
    result = action()
    for key in sorted(redis.keys() - before):
        created.setdefault(key.decode().removeprefix(PREFIX).partition(":")[0], []).append(key)
    return result


def user(email):
    return {"email": email, "password": subjects.PASSWORD}


def register(client, email):
    return client.call("POST", "auth/register", body=user(email))


def wait_for_use(redis, key):
    """Waits until the use of a session has been written."""
    before, deadline = redis.call("STRLEN", key), time.monotonic() + 20
    while redis.call("STRLEN", key) == before:
        if time.monotonic() > deadline:
            raise subjects.Unavailable("no use of a session was written")
        time.sleep(0.05)


def bytes_each(redis, keys):
    """Copies keys many times under names of the same length; returns the bytes of one copy of all of them."""
    before = redis.memory()
    commands = [["COPY", key, renamed(key, number), "DB", DATABASE] for number in range(COPIES) for key in keys]
    if not all(reply == 1 for reply in redis.pipeline(commands)):
        raise subjects.Unavailable(f"{keys} could not be copied")
    each = (redis.memory() - before) / COPIES
    redis.pipeline([["SELECT", DATABASE], ["FLUSHDB", "SYNC"], ["SELECT", 0]])
    return round(each)


def renamed(key, number):
    return re.sub(rb"[0-9a-f]{8}", b"%08x" % number, key, count=1)
