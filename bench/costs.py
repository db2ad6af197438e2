"""Measures the CPU time that a request, a sign-in, a refresh and a sign-out take, at the gateway and in Redis."""

import itertools
import time

import lanes
import load
import subjects
from api_client import ApiClient
from redis_client import Redis

REQUESTS = [lanes.OPEN, lanes.KNOWN, lanes.LEASED, lanes.EXACT, lanes.COLD]
# Clients: a gateway bounds the sign-ins per second from one address.
ADDRESSES = 32
# Refreshes of each session.
REFRESHES = 3
# Seconds in which the cost of an idle gateway is measured.
IDLE = 2


def requests(bench, options):
    """Returns the slices of each kind of request."""
    upstream = bench.start_upstream()
    options.users, options.connections = 1000, 64
    chosen, failed = lanes.start(bench, upstream, options, REQUESTS)
    measured = load.measure(bench, chosen, upstream, options)
    return {**failed, **measured}


def calls(bench, options):
    """Returns the microseconds of the gateway and of Redis, for each kind of call."""
    bench.upstream = subjects.free_port()  # unused: no request is forwarded
    taken = {"sign-in with a password": sequence(bench, options.sign_ins)["sign-in"]}
    made = sequence(bench, options.calls, backend(bench))
    return taken | {"sign-in at a backend": made.pop("sign-in"), **made}


def backend(bench):
    """Starts a backend that accepts every sign-in, each as another user; returns the gateway's settings."""
    port = subjects.free_port()
    server = "location / { default_type application/json; return 200 '{\"id\":\"$request_id\"}'; }"
    bench.nginx("backend", subjects.Pinning.other, port, "", server, workers=1)
    return {"upstream": {
        "login": f"POST http://127.0.0.1:{port}/login", "user_id": "/id",
        "sign_in_limits": {"attempts_per_address": {"limit": 1000000, "window": "1m"}},
    }}


def sequence(bench, many, identity=None):
    """Makes each kind of call, one at a time, at a gateway of its own."""
    port, _ = bench.start_redis()
    gateway = subjects.Gateway(bench.upstream, f"redis://127.0.0.1:{port}")
    if identity:
        gateway.config["identity"] = identity
    process = bench.start_gateway(gateway)
    clients = itertools.cycle([ApiClient(gateway.port, f"127.1.0.{number}") for number in range(1, ADDRESSES)])
    people = [{"email": f"user{number}@example.com", "password": subjects.PASSWORD} for number in range(many)]
    call = lambda path, body=None, token=None: next(clients).call("POST", f"auth/{path}", token, body)
    if not identity:
        for user in people:
            call("register", user)
    with Redis(port) as redis:
        meter, taken = Meter({"gateway": process, "redis": redis}), {}
        meter.idle()
        signed_in, taken["sign-in"] = meter.each(lambda user: call("login", user), people)
        _, taken["refresh"] = meter.each(lambda one: refresh(call, one), signed_in * REFRESHES)
        _, taken["sign-out"] = meter.each(lambda one: call("logout", token=one["access_token"]), signed_in)
    return taken


def refresh(call, session):
    """Refreshes the tokens of a session."""
    session.update(call("refresh", {"refresh_token": session["refresh_token"]}))


class Meter:
    """Measures CPU time per operation, without what the processes take when idle."""

    def __init__(self, watched):
        self.watched = watched
        self.rates = dict.fromkeys(watched, 0.0)

    def read(self):
        return {name: one.cpu_seconds() for name, one in self.watched.items()}

    def idle(self, seconds=IDLE):
        """Measures the processes without load; returns seconds of CPU per second."""
        before = self.read()
        time.sleep(seconds)
        self.rates = {name: (value - before[name]) / seconds for name, value in self.read().items()}
        return self.rates

    def each(self, action, items):
        """Runs an action for each item; returns the results, and the microseconds of each process per action."""
        items = list(items)
        before, began = self.read(), time.monotonic()
        results = [action(item) for item in items]
        return results, self.since(before, began, len(items))

    def since(self, before, began, count):
        """Returns the microseconds of each process per operation since a reading."""
        took = time.monotonic() - began
        return {
            name: max(0.0, value - before[name] - self.rates[name] * took) / count * 1e6
            for name, value in self.read().items()
        }
