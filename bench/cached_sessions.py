"""Measures the memory of a gateway that has cached many sessions, and what their uses cost."""

import time

import load
import subjects
import users
from redis_client import Redis

# The maximum number of sessions that a slice of load uses.
SPREAD = 100_000
# Shorter than the time after which cached sessions are queried again.
SECONDS = 3


def measure(bench, options):
    """Returns a row for each number of sessions."""
    upstream = bench.start_upstream()
    redis_port, redis_process = bench.start_redis()
    gateway = subjects.Gateway(bench.upstream, f"redis://127.0.0.1:{redis_port}")
    process = bench.start_gateway(gateway)
    rows, done = [], 0
    with Redis(redis_port) as redis:
        empty = redis.memory()
        rows.append({"sessions": 0, "gateway_mib": settled(process), "redis_bytes": None})
        for size in options.sessions:
            users.sign_in(bench.binaries, redis_port, done, size)
            tokens = users.write_tokens(bench.folder / f"tokens-{size}", done, size)
            lane = load.Lane("sessions", gateway.port, "/known", process, tokens, redis_process)
            lane.every = max(1, (size - done) // SPREAD)
            load.request_once(lane)
            rows.append({
                "sessions": size, "gateway_mib": settled(process), "redis_bytes": (redis.memory() - empty) / size,
                **uses(redis, lane, upstream, options),
            })
            bench.empty_logs()
            done = size
    return rows


def settled(process):
    """Returns the memory once the process is idle."""
    time.sleep(1.5)
    return process.resident_mib()


def uses(redis, lane, upstream, options):
    """Loads the sessions in turn; returns CPU times and written uses per request."""
    options.seconds = SECONDS
    written, cpu = redis.calls("set"), redis.cpu_seconds()
    taken = load.slice_of(lane, upstream, options, 64, judged=True)
    # The last uses are written within a second after the load.
    time.sleep(1.2)
    requests = taken["rate"] * SECONDS
    written, cpu = redis.calls("set") - written, redis.cpu_seconds() - cpu
    return {
        "cpu": taken["cpu"], "uses": written / requests,
        "redis_per_use": cpu / written * 1e6 if written else None,
    }
