"""A fleet of gateways that share one Redis: what it costs, and how fast a revocation reaches every gateway.

Every gateway is a process of the real binary with one worker. They share a core, so throughput and latencies
are those of this machine; CPU times per operation are not. The CPU time of Redis is the server's own
(`INFO cpu`).
"""

import re
import sys
import threading
import time
import urllib.request

import load
import subjects
import users
from api_client import ApiClient
from costs import Meter
from redis_client import Redis

USERS = 1000
# Sessions that are ended one by one, at this interval in seconds.
STEADY, STEADY_INTERVAL = 500, 0.01
# Changes that are written to measure invalidations, alone and in batches.
SINGLE, BATCHED, BATCH = 1000, 20_000, 100
# Milliseconds between a response and the next request of a connection, for a moderate load.
PAUSE = 50
# Seconds of one run of the load generator.
SLICE = 3
# Attempts at a sign-out, which an overloaded machine may delay for too long.
ATTEMPTS = 20
CONNECTIONS_EACH = 2
# Seconds in which an idle fleet is measured.
IDLE = 4
# The mixes: path, and whether each client stays at one gateway.
MIXES = {
    "known session, each client at one gateway": ("/known", True),
    "known session, each client at all gateways": ("/known", False),
    "leased limit, each client at one gateway": ("/leased", True),
    "leased limit, each client at all gateways": ("/leased", False),
    "exact limit": ("/full", False),
}


def measure(bench, options):
    """Returns all figures of the fleet."""
    bench.start_upstream()
    redis_port, _ = bench.start_redis()
    with Redis(redis_port) as redis:
        fleet = Fleet(bench, redis_port, redis)
        figures = {"gateways": options.gateways}
        for name, part in [
            ("idle", idle), ("mixes", mixes), ("invalidations", invalidations), ("revocations", revocations),
        ]:
            figures[name] = part(bench, fleet, options)
            print(f"{name} of {options.gateways} gateways: {figures[name]}", file=sys.stderr)
    return figures


class Fleet:
    """The gateways, observed as one process."""

    def __init__(self, bench, redis_port, redis):
        self.bench, self.redis_port, self.redis = bench, redis_port, redis
        self.gateways, self.processes = [], []

    def grow(self, count):
        while len(self.gateways) < count:
            gateway = subjects.Gateway(self.bench.upstream, f"redis://127.0.0.1:{self.redis_port}")
            self.processes.append(self.bench.start_gateway(gateway))
            self.gateways.append(gateway)

    def ports(self):
        return [gateway.port for gateway in self.gateways]

    def cpu_seconds(self):
        return sum(process.cpu_seconds() for process in self.processes)

    def resident_mib(self):
        return sum(process.resident_mib() for process in self.processes) / len(self.processes)

    def meter(self):
        return Meter({"gateway": self, "redis": self.redis})

    def lags(self):
        """Returns the number of revocations by the upper bounds of their lags in seconds, cumulative."""
        found = {}
        for gateway in self.gateways:
            with urllib.request.urlopen(f"http://127.0.0.1:{gateway.admin}/metrics", timeout=20) as response:
                text = response.read().decode()
            for bound, count in re.findall(r'^portcullis_revocation_lag_seconds_bucket\{le="(.*)"\} (\d+)', text, re.M):
                found[float(bound)] = found.get(float(bound), 0) + int(count)
        return found

    def lane(self, path, tokens, every):
        return load.Lane("fleet", self.gateways[0].port, path, None, tokens, ports=self.ports(), every=every)

    def connections(self):
        return CONNECTIONS_EACH * len(self.gateways)


def idle(_bench, fleet, options):
    """Returns what gateways without requests cost, for several sizes of the fleet."""
    rows = []
    for count in sorted({1, 10, options.gateways}):
        fleet.grow(count)
        # A gateway announces itself, connects and cleans up after its start.
        time.sleep(2)
        commands = fleet.redis.info("stats")["total_commands_processed"]
        rates = fleet.meter().idle(IDLE)
        now = fleet.redis.info("stats")["total_commands_processed"]
        rows.append({
            "gateways": count, "redis": rates["redis"], "gateway": rates["gateway"] / count,
            "commands": (int(now) - int(commands)) / IDLE, "resident_mib": fleet.resident_mib(),
            "connections": int(fleet.redis.info("clients")["connected_clients"]) - 1,
            "connections_mib": int(fleet.redis.info("memory")["mem_clients_normal"]) / 2**20,
        })
    return rows


def mixes(bench, fleet, options):
    """Returns requests per second, and CPU times per request, for each mix."""
    users.sign_in(bench.binaries, fleet.redis_port, 0, USERS)
    tokens = users.write_tokens(bench.folder / "tokens", 0, USERS)
    meter, rows = fleet.meter(), {}
    meter.idle(IDLE)
    for name, (path, stays) in MIXES.items():
        lane = fleet.lane(path, tokens, len(fleet.gateways) if stays else 1)
        load.run_wrk(lane, fleet.connections(), 2)
        before, began = meter.read(), time.monotonic()
        requests, refused, seconds, p50, p99 = load.run_wrk(lane, fleet.connections(), options.mix_seconds)
        if refused:
            raise subjects.Unavailable(f"{name}: {refused} of {requests} requests were rejected")
        rows[name] = {"rate": requests / seconds, "p50": p50, "p99": p99, **meter.since(before, began, requests)}
        bench.empty_logs()
    return rows


def invalidations(bench, fleet, _options):
    """Returns the CPU time of one invalidation, in Redis and at a gateway, alone and in a batch."""
    other_port, _ = bench.start_redis()
    figures = {}
    for name, count, batch in [("one at a time", SINGLE, 1), ("in batches", BATCHED, BATCH)]:
        with Redis(other_port) as other:
            alone = changes(other, Meter({"redis": other}), count, batch)["redis"]
        meter = fleet.meter()
        meter.idle(IDLE)
        taken = changes(fleet.redis, meter, count, batch)
        many = len(fleet.gateways)
        figures[name] = {
            "write": alone, "redis": max(0.0, taken["redis"] - alone) / many, "gateway": taken["gateway"] / many,
        }
    return figures


def changes(redis, meter, count, batch):
    """Blacklists tokens; returns the microseconds of each process per change."""
    keys = [f"portcullis:blacklist:{count:08x}-{number:08x}" for number in range(count)]
    commands = [["SET", key, 1, "EX", 60] for key in keys]
    before, began = meter.read(), time.monotonic()
    for first in range(0, count, batch):
        redis.pipeline(commands[first:first + batch])
    # Until the gateways have read the last messages.
    time.sleep(0.3)
    return meter.since(before, began, count)


def revocations(bench, fleet, options):
    """Returns the lags of revocations under a moderate load: one by one, and in a storm."""
    steady = users.write_tokens(bench.folder / "tokens-steady", USERS, USERS + STEADY)
    first = USERS + STEADY
    storm = users.write_tokens(bench.folder / "tokens-storm", first, first + options.storm)
    every = users.write_tokens(bench.folder / "tokens-all", 0, first + options.storm)
    users.sign_in(bench.binaries, fleet.redis_port, USERS, first + options.storm)
    # Each session is used at one gateway, which uses every one of its sessions within seconds.
    lane = fleet.lane("/known", every, len(fleet.gateways))
    return {
        "one by one": under_load(fleet, lane, options, lambda _: end_steadily(fleet, steady)),
        "storm": under_load(fleet, lane, options, lambda meter: end_at_once(fleet, storm, meter)),
    }


def under_load(fleet, lane, options, action):
    """Runs an action while the fleet is under a moderate load; returns the lags of revocations."""
    over, slices = threading.Event(), []

    def traffic():
        while not over.is_set():
            slices.append(load.run_wrk(lane, fleet.connections(), SLICE, PAUSE=str(PAUSE)))

    lags, thread = fleet.lags(), threading.Thread(target=traffic)
    thread.start()
    # Every gateway caches its sessions first, and afterwards uses those that have ended.
    time.sleep(options.lag_seconds)
    meter = fleet.meter()
    meter.idle(IDLE)
    ended = action(meter)
    time.sleep(options.lag_seconds)
    over.set()
    thread.join()
    if not slices:
        raise subjects.Unavailable("no load on the fleet")
    new = {bound: count - lags.get(bound, 0) for bound, count in fleet.lags().items()}
    observed = max(new.values(), default=0)
    return {
        "rate": sum(one[0] for one in slices) / sum(one[2] for one in slices), "p99": max(one[4] for one in slices),
        "ended": ended, "observed": observed,
        **{f"lag_{share}": lag(new, observed, share) for share in (50, 99, 100)},
    }


def lag(buckets, observed, share):
    """Returns the upper bound in seconds of this share, in percent, of the lags."""
    reached = [bound for bound, count in sorted(buckets.items()) if observed and count >= observed * share / 100]
    return reached[0] if reached else None


def end_steadily(fleet, tokens):
    """Ends sessions one by one; returns how long it took."""
    client, lines = ApiClient(fleet.gateways[0].port), tokens.read_text().split()
    began = time.monotonic()
    for number, token in enumerate(lines):
        time.sleep(max(0.0, began + number * STEADY_INTERVAL - time.monotonic()))
        for _ in range(ATTEMPTS):
            if client.request("POST", "/api/v1/auth/logout", token)[0] != 503:
                break
    return {"sessions": len(lines), "seconds": time.monotonic() - began}


def end_at_once(fleet, tokens, meter):
    """Ends sessions as fast as one gateway can; returns how long it took, and CPU times per session."""
    lane = load.Lane("storm", fleet.gateways[0].port, "/api/v1/auth/logout", None, tokens)
    before, began = meter.read(), time.monotonic()
    ended, refused, *_ = load.run_wrk(lane, 16, 300, ONCE="1", METHOD="POST")
    sessions = load.count_lines(tokens)
    if refused > ended / 10 or ended < sessions:
        raise subjects.Unavailable(f"{refused} of {ended} sign-outs failed")
    return {"sessions": sessions, "seconds": time.monotonic() - began, **meter.since(before, began, sessions)}
