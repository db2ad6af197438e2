"""Rules of thumb: what a number of sessions, requests and connections needs, computed from the measurements."""

import math

import textwrap

import lanes
import load
from tables import number, rows

# Sessions, requests per second, connections.
SIZES = [(10_000, 500, 1_000), (100_000, 5_000, 10_000), (1_000_000, 20_000, 50_000), (10_000_000, 100_000, 250_000)]
# The part of all sessions that is in use.
IN_USE = 0.1
# Of all requests, those whose session this gateway has not used for ten seconds.
LOOK_UPS = 0.1
# A session lasts a week; the peak is a multiple of the average.
LIFETIME, PEAK = 7 * 86_400, 5
# Sessions in use refresh their access token at this interval.
REFRESH = 15 * 60
# How busy processors are to be at the peak, and how much more memory than the data is planned.
BUSY, MEMORY = 0.5, 1.5
# Cores of one gateway, and the connections of its pool.
CORES, POOL = 4, 10
# Counters of limits, one for each session in use.
COUNTER = "sliding_window counter"
NEEDED = ("entries", "sessions", "requests", "calls", "fleet", "memory", "database")


def is_complete(figures):
    return all(figures[part] for part in NEEDED)


def units(figures):
    """Formats the table of what one unit of each kind of work needs."""
    needs = Needs(figures, 1, 1, 1)
    lines = [*of_requests(needs), *of_calls(needs), *of_memory(figures), *of_fleet(figures["fleet"])]
    return rows(["work", "gateways", "Redis", "PostgreSQL"], lines)


def percent(micros, count):
    return f"{number(micros * count / 1e4, 1)} % of a core"


def mib(size, count):
    return f"{number(size * count / 2**20)} MiB"


def of_requests(needs):
    known, exact, cold = (needs.per_request(name, "cpu") for name in (lanes.KNOWN, lanes.EXACT, lanes.COLD))
    exact_redis, cold_redis = (needs.per_request(name, "redis") for name in (lanes.EXACT, lanes.COLD))
    use = needs.figures["sessions"][-1]["redis_per_use"]
    yield ["1,000 requests/s of known sessions", percent(known, 1000), "–", "–"]
    for words, gateway, redis in [
        ("with an exact limit", exact - known, exact_redis),
        ("each of another session", many_sessions(needs.figures), use),
        ("of sessions that the gateway has to look up", cold - known, cold_redis),
    ]:
        yield [f"… {words}, in addition", percent(gateway, 1000), percent(redis, 1000), "–"]


def of_calls(needs):
    database = needs.figures["database"]["calls"]
    for words, name, stored, count in [
        ("1 sign-in/s with a password", "sign-in with a password", "sign-in", 1),
        ("10 sign-outs/s", "sign-out", "sign-out", 10),
        ("10 refreshes/s", "refresh", "refresh", 10),
    ]:
        micros = [needs.call(name, "gateway"), needs.call(name, "redis"), database[stored]["database"]]
        yield [words, *(percent(one, count) for one in micros)]


def of_memory(figures):
    rows_each = sum(figures["database"]["rows"].values())
    cached = f"{mib(cached_bytes(figures), 1e5)} where they are cached"
    yield ["100,000 sessions", cached, mib(session_bytes(figures["entries"]), 1e5), mib(rows_each, 1e5)]
    yield ["10,000 active connections", mib(kib_per_connection(figures) * 1024, 1e4), "–", "–"]


def of_fleet(fleet):
    idle, single, many = fleet["idle"][-1], fleet["invalidations"]["one at a time"], fleet["gateways"]
    gateway = f"{number(idle['resident_mib'])} MiB, {percent(idle['gateway'] * 1e6, 1)}"
    connections = idle["connections"] // idle["gateways"]
    redis = f"{percent(idle['redis'] / idle['gateways'] * 1e6, 1)}, {connections} connections"
    yield ["1 gateway without requests", gateway, redis, f"up to {POOL} connections"]
    change = single["write"] + single["redis"] * many
    each = f"{percent(single['gateway'], 10)} each"
    yield [f"10 changes of sessions/s, {many} gateways", each, percent(change, 10), "–"]


def table(figures):
    """Formats the table of complete sizes."""
    head = [
        "sessions", "requests/s", "connections", "gateways × cores", "memory of each, GiB", "Redis masters",
        "Redis, % of a core", "memory of all masters, GiB", "PostgreSQL cores", "PostgreSQL disk, GiB",
        "PostgreSQL connections, at most",
    ]
    return rows(head, [line(Needs(figures, *size)) for size in SIZES])


def line(needs):
    gateways = max(2, math.ceil(needs.gateway_cores() / BUSY / CORES))
    redis = needs.redis_cores(gateways)
    masters = max(1, math.ceil(redis / BUSY))
    return [
        number(needs.sessions), number(needs.requests), number(needs.connections),
        f"{gateways} × {cores_each(needs, gateways)}", gib(needs.gateway_gib(gateways)),
        number(masters if masters < 2 else max(3, masters)), number(redis * 100), gib(needs.redis_gib()),
        number(max(1, math.ceil(needs.database_cores() / BUSY))), gib(needs.database_gib()),
        number(gateways * POOL),
    ]


def cores_each(needs, gateways):
    """Returns the cores of each gateway, so that the others suffice while one is replaced."""
    return max(1, math.ceil(needs.gateway_cores() / BUSY / max(1, gateways - 1)))


def gib(value):
    return number(max(0.1, value), 1)


class Needs:
    """What one size needs."""

    def __init__(self, figures, sessions, requests, connections):
        self.figures, self.sessions, self.requests, self.connections = figures, sessions, requests, connections
        self.sign_ins = sessions / LIFETIME * PEAK
        self.refreshes = sessions * IN_USE / REFRESH

    def per_request(self, name, figure):
        return load.median(self.figures["requests"][name]["slices"], figure) or 0.0

    def call(self, name, figure):
        return self.figures["calls"][name][figure]

    def gateway_cores(self):
        known, exact, cold = (self.per_request(name, "cpu") for name in (lanes.KNOWN, lanes.EXACT, lanes.COLD))
        micros = exact + many_sessions(self.figures) + LOOK_UPS * (cold - known)
        spent = self.requests * micros + self.sign_ins * self.call("sign-in with a password", "gateway")
        spent += self.refreshes * self.call("refresh", "gateway") + self.sign_ins * self.call("sign-out", "gateway")
        return spent / 1e6

    def redis_cores(self, gateways):
        figures = self.figures
        use = figures["sessions"][-1]["redis_per_use"]
        micros = self.per_request(lanes.EXACT, "redis") + use + LOOK_UPS * self.per_request(lanes.COLD, "redis")
        spent = self.requests * micros + self.refreshes * self.call("refresh", "redis")
        message = figures["fleet"]["invalidations"]["one at a time"]["redis"] * gateways
        # The start and the end of a session are reported to every gateway.
        both = self.call("sign-in at a backend", "redis") + self.call("sign-out", "redis")
        spent += self.sign_ins * (both + 2 * message)
        idle = figures["fleet"]["idle"][-1]
        return spent / 1e6 + idle["redis"] * gateways / idle["gateways"]

    def gateway_gib(self, gateways):
        cached = min(self.sessions * IN_USE, cached_at_most(self.figures))
        mib = self.figures["sessions"][0]["gateway_mib"] + cached * cached_bytes(self.figures) / 2**20
        # The others take the connections of a gateway that is replaced.
        connections = self.connections / max(1, gateways - 1)
        return (mib + connections * kib_per_connection(self.figures) / 1024) / 1024 * MEMORY

    def redis_gib(self):
        entries = self.figures["entries"]
        return self.sessions * (session_bytes(entries) + IN_USE * entries[COUNTER]) / 2**30 * MEMORY

    def database_cores(self):
        micros = {name: taken["database"] for name, taken in self.figures["database"]["calls"].items()}
        spent = self.sign_ins * (micros["sign-in"] + micros["sign-out"]) + self.refreshes * micros["refresh"]
        return spent / 1e6

    def database_gib(self):
        return self.sessions * sum(self.figures["database"]["rows"].values()) / 2**30 * MEMORY


def session_bytes(entries):
    """Returns the bytes in Redis of a user with one session."""
    names = ("session record", "session use and refresh tokens", "index of a user with 1 session")
    return sum(entries[name] for name in names)


def cached_bytes(figures):
    """Returns the bytes of a session that a gateway has cached."""
    first, last = figures["sessions"][0], figures["sessions"][-1]
    return (last["gateway_mib"] - first["gateway_mib"]) * 2**20 / last["sessions"]


def cached_at_most(figures):
    """Returns the sessions that fit into the largest budgets of the near cache: 1 GiB, and half of it for tokens."""
    return 1.5 * 2**30 / cached_bytes(figures)


def many_sessions(figures):
    """Returns by how much a request costs more when many sessions are used in turn."""
    few = load.median(figures["requests"][lanes.KNOWN]["slices"], "cpu")
    return max(0.0, figures["sessions"][-1]["cpu"] - few)


def kib_per_connection(figures):
    """Returns the KiB of an active connection."""
    memory = figures["memory"]
    taken = next(taken for kind, subject, taken in memory["rows"] if (kind, subject) == ("active", "Portcullis"))
    return (taken[-1] - taken[0]) * 1024 / memory["counts"][-1]


def assumptions():
    """Describes the assumptions of the table, as a list."""
    return "\n".join(textwrap.fill(words, 115, initial_indent="* ", subsequent_indent="  ") for words in [
        f"{IN_USE:.0%} of the sessions are in use, each of another user. Every request has a session and one exact "
        f"limit, and writes a use of its session; {LOOK_UPS:.0%} of the requests have a session that their gateway has "
        "to look up.",
        f"Sessions last {LIFETIME // 86_400} days. At the peak, {PEAK} times as many begin and end as on average, each "
        f"with a password, and those in use refresh their access token every {REFRESH // 60} minutes. Sessions are "
        "durable, and users are in the same PostgreSQL.",
        f"Processors are {BUSY:.0%} busy at the peak, with one gateway missing. Memory and disk are {MEMORY:g} times "
        "what the data takes, for fragmentation and for the copy that writes a snapshot.",
        "Clients use HTTP/1.1 without TLS. HTTP/2 with TLS about doubles the CPU time of a request at the gateway "
        "([performance.md](performance.md#comparison)).",
    ])
