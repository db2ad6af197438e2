"""The subjects of `bench/run`, in the order of its table, and how to start each of them."""

import argparse
import subprocess
import sys

import users
from gateway import Gateway, config_folder
from load import FLOOR, NGINX, Lane, run_wrk, words, wrk
from processes import Unavailable

DIRECT = "upstream, direct"
PLAIN = "Pingora, bare proxy, as people build it"
BARE_TLS = "Pingora, bare proxy, tuned, HTTP/2 with TLS"
LUA = "nginx + Lua, hand-tuned, full work"
NODE = "Node (express), full work"
OPEN = "Portcullis, no auth"
KNOWN = "Portcullis, known session"
LEASED = "Portcullis, known session, leased limit"
EXACT = "Portcullis, known session, exact limit"
COLD = "Portcullis, cold: each session for the first time"
DENIED = "Portcullis, denied (429), exact limit"
DENIED_LEASED = "Portcullis, denied (429), leased limit"
UNAUTHENTICATED = "Portcullis, no credential (401)"
QUERY = "Portcullis, known session, query of a front proxy"
KEY = "Portcullis, known API key"
TLS = "Portcullis, known session, HTTP/2 with TLS"
SIGNED = {name: f"Portcullis, known session, {name} token" for name in users.ISSUER["algorithms"]}
NAMES = [
    DIRECT, NGINX, PLAIN, FLOOR, LUA, NODE, OPEN, KNOWN, LEASED, EXACT, COLD, DENIED, DENIED_LEASED,
    UNAUTHENTICATED, QUERY, KEY,
    *SIGNED.values(), BARE_TLS, TLS,
]
# More sessions than a gateway can serve in a second.
COLD_A_SECOND = 60_000


def chosen(texts):
    """Returns the names that contain one of the texts, or all names; the bare proxies are always included."""
    return [
        name for name in NAMES
        if name in (FLOOR, NGINX) or not texts or any(text.lower() in name.lower() for text in texts)
    ]


def start(bench, upstream, options, names):
    """Starts these lanes; returns those that started, and why the others cannot be measured."""
    starting = Starting(bench, upstream, options, names)
    lanes, failed = [], {}
    for name in names:
        try:
            lanes.append(starting.lane(name))
        except (Unavailable, OSError, subprocess.SubprocessError) as error:
            failed[name] = {"slices": [], "failed": words(error)}
            print(f"{name} is left out: {error}", file=sys.stderr)
    return lanes, failed


class Starting:
    """Starts lanes; a process that lanes share is started with the first that needs it."""

    def __init__(self, bench, upstream, options, names):
        self.bench, self.upstream, self.options, self.names = bench, upstream, options, names
        self.redis_port, self.redis = bench.start_redis()
        self.tokens = users.write_tokens(bench.folder / "tokens", 0, options.users)
        self.started = {}

    def once(self, what, start):
        """Starts it once and returns it; a failure is raised again on each call."""
        if what not in self.started:
            try:
                self.started[what] = start()
            except Unavailable as error:
                self.started[what] = error
        if isinstance(self.started[what], Unavailable):
            raise self.started[what]
        return self.started[what]

    def lane(self, name):
        bench = self.bench
        if name == DIRECT:
            return Lane(name, bench.upstream, "/", self.upstream)
        if name in (NGINX, PLAIN, FLOOR):
            starts = {NGINX: bench.start_nginx_proxy, PLAIN: bench.start_plain, FLOOR: bench.start_bare}
            port, process = starts[name]()
            return Lane(name, port, "/", process)
        if name == BARE_TLS:
            port, process = bench.start_bare(certificate=bench.certificate())
            return Lane(name, port, "/", process, tls=True)
        if name in (LUA, NODE):
            self.once("others", lambda: users.write_other_users(self.redis_port, self.tokens))
            starts = {LUA: bench.start_nginx_lua, NODE: bench.start_node}
            port, process = starts[name](self.redis_port)
            return Lane(name, port, "/", process, self.tokens, self.redis)
        if name == COLD:
            return self.cold()
        return self.of_gateway(name)

    def of_gateway(self, name):
        """Returns a lane of the gateway that has all routes."""
        gateway, process = self.once("gateway", self.start_gateway)
        port = gateway.port
        if name == OPEN:
            return Lane(name, port, "/open", process)
        if name == UNAUTHENTICATED:
            return Lane(name, port, "/known", process, refused=True)
        if name == KEY:
            keys = self.once("keys", lambda: self.bench.create_keys(gateway, self.options.users))
            return self.warmed(Lane(name, port, "/known", process, keys, self.redis))
        self.once("users", lambda: self.sign_in(self.redis_port, self.options.users))
        if name == QUERY:
            fields = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
            lane = Lane(name, gateway.queries, "/ext-authz/known", process, self.tokens, self.redis, fields=fields)
            return self.warmed(lane)
        if name == TLS:
            if gateway.tls_port is None:
                self.bench.certificate()
            floor = BARE_TLS if BARE_TLS in self.names else FLOOR
            return Lane(name, gateway.tls_port, "/known", process, self.tokens, self.redis, tls=True, floor=floor)
        if name in SIGNED.values():
            algorithm = next(each for each, lane in SIGNED.items() if lane == name)
            issuer = self.once("issuer", lambda: users.Issuer(config_folder(self.bench.folder)))
            tokens = self.once("signed", lambda: issuer.sign(self.tokens))[algorithm]
            return self.warmed(Lane(name, port, "/known", process, tokens, self.redis))
        path = {
            KNOWN: "/known", LEASED: "/leased", EXACT: "/full", DENIED: "/limited", DENIED_LEASED: "/denied",
        }[name]
        lane = Lane(name, port, path, process, self.tokens, self.redis, refused=name in (DENIED, DENIED_LEASED))
        return self.warmed(lane)

    def warmed(self, lane):
        """Adds one second of the same load before each slice: between slices leases expire, rejections and
        sessions have to be queried again, and the latest use of each session falls due to be written."""
        lane.prepare = lambda lane: run_wrk(lane, self.options.connections, 1)
        return lane

    def start_gateway(self):
        """Starts the gateway, with a certificate and an issuer if they are available."""
        extras = {}
        for what, have in [("certificate", self.bench.certificate), ("issuer", self.have_issuer)]:
            try:
                extras[what] = have()
            except Unavailable as error:
                print(f"no {what}: {error}", file=sys.stderr)
        gateway = Gateway(self.bench.upstream, store(self.redis_port), **extras)
        return gateway, self.bench.start_gateway(gateway)

    def have_issuer(self):
        return self.once("issuer", lambda: users.Issuer(config_folder(self.bench.folder))).settings

    def sign_in(self, redis_port, many):
        print(f"signing in {many} users …", file=sys.stderr)
        users.sign_in(self.bench.binaries, redis_port, 0, many)

    def cold(self):
        """Returns a lane with a gateway and a Redis of its own. The gateway is restarted before each slice, and each
        session is used once."""
        many = COLD_A_SECOND * self.options.seconds
        redis_port, redis = self.bench.start_redis()
        self.sign_in(redis_port, many)
        tokens = users.write_tokens(self.bench.folder / "tokens-cold", 0, many)
        gateway = Gateway(self.bench.upstream, store(redis_port))

        def restart(lane):
            if lane.process:
                self.bench.stop(lane.process)
            lane.process = self.bench.start_gateway(gateway)
            # Warms connections to the upstream, code and buffers, but not sessions.
            warm_up(lane, self.options.connections)

        return Lane(COLD, gateway.port, "/known", None, tokens, redis, once=True, prepare=restart)


def store(port):
    return f"redis://127.0.0.1:{port}"


def warm_up(lane, connections):
    """Sends requests that need no session for one second."""
    second = argparse.Namespace(seconds=1)
    for attempt in range(5):
        try:
            wrk(Lane("warm-up", lane.port, "/open", lane.process), connections, second)
            return
        except Unavailable as error:
            last = error
            print(f"warming up: {error}", file=sys.stderr)
    raise last
