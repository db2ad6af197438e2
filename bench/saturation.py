"""Sends what gateways send to Redis as fast as Redis can take it: the operations per second of one core.

The commands are those that a real gateway has sent, recorded by `MONITOR`. They are repeated on as many
connections as a fleet has, limits each time with another counter.
"""

import codecs
import itertools
import os
import re
import selectors
import socket
import time

import subjects
import users
from api_client import ApiClient
from processes import Pinning
from redis_client import Redis, encoded

CONNECTIONS = 50
# Commands that a connection has under way at once: a gateway pipelines those of all its requests.
DEPTHS = [1, 8, 64]
USERS = 8
# Commands of each connection, each with a counter of its own. A multiple of every depth.
VARIANTS = 128
# The operations: path, and whether it is measured at a gateway that has not cached the session.
OPERATIONS = {"exact limit": "/full", "session look-up": "/known"}


def measure(bench, options):
    """Returns operations per second and microseconds of Redis for each operation and depth."""
    bench.start_upstream()
    port, _ = bench.start_redis()
    users.sign_in(bench.binaries, port, 0, USERS)
    tokens = users.write_tokens(bench.folder / "tokens", 0, USERS).read_text().split()
    gateway = subjects.Gateway(bench.upstream, f"redis://127.0.0.1:{port}")
    process = bench.start_gateway(gateway)
    client = ApiClient(gateway.port)
    # First what no gateway has cached: then the limit alone remains of the other.
    commands = {}
    for name in ("session look-up", "exact limit"):
        commands[name] = recorded(port, lambda: client.request("GET", OPERATIONS[name], tokens[0]))
    bench.stop(process)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(Pinning.gateway)})
    try:
        with Redis(port) as redis:
            return [
                {"operation": name, "depth": depth, **saturate(redis, port, commands[name], depth, options)}
                for name in OPERATIONS for depth in DEPTHS
            ]
    finally:
        os.sched_setaffinity(0, cores)


def recorded(port, action):
    """Returns the script that an action has Redis execute for a request: the last one of several keys."""
    with Redis(port) as monitor:
        monitor.call("MONITOR")
        action()
        with Redis(port) as other:
            other.call("ECHO", "recorded")
        found, words = None, []
        while words[:2] != [b"ECHO", b"recorded"]:
            line = monitor.reply()
            words = [codecs.escape_decode(word)[0] for word in re.findall(rb'"((?:[^"\\]|\\.)*)"', line)]
            joined = b" ".join(words)
            if words[0].lower() == b"evalsha" and (b":limit:" in joined or b":session:" in joined):
                found = words
    if not found:
        raise subjects.Unavailable("the gateway has sent no script to Redis")
    return found


def saturate(redis, port, command, depth, options):
    """Repeats a command for a while; returns the rate and the CPU time of Redis."""
    # Of one length, so that replies can be counted by their bytes.
    redis.pipeline(variants(command, 0, 1) * 2)
    length = reply_length(redis.pipeline(variants(command, 0, 1))[0])
    clients = [Client(port, command, number * VARIANTS, depth, length) for number in range(CONNECTIONS)]
    before, began = redis.cpu_seconds(), time.monotonic()
    done = run(clients, depth, began + options.mix_seconds)
    seconds, spent = time.monotonic() - began, redis.cpu_seconds() - before
    for client in clients:
        client.socket.close()
    return {"rate": done / seconds, "redis": spent / done * 1e6, "busy": spent / seconds}


def variants(command, first, count):
    """Returns the command with other counters. Sessions stay, because a missing one costs less."""
    return [
        [re.sub(rb"(:limit:[^:]+:)[0-9a-f]{8}", rb"\g<1>%08x" % number, word) for word in command]
        for number in range(first, first + count)
    ]


def reply_length(reply):
    """Returns the bytes of a reply on the connection."""
    if isinstance(reply, list):
        return len(b"*%d\r\n" % len(reply)) + sum(map(reply_length, reply))
    if isinstance(reply, int):
        return len(b":%d\r\n" % reply)
    return len(b"$%d\r\n" % len(reply)) + len(reply) + 2


class Client:
    """A connection that sends the next batch once it has the replies to the last one."""

    def __init__(self, port, command, first, depth, length):
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        commands = [encoded(words) for words in variants(command, first, VARIANTS)]
        batches = [b"".join(commands[at:at + depth]) for at in range(0, VARIANTS, depth)]
        self.batches = itertools.cycle(batches)
        self.expected, self.missing = depth * length, 0

    def send(self):
        self.socket.sendall(next(self.batches))
        self.missing = self.expected

    def receive(self):
        """Returns whether the batch is complete."""
        self.missing -= len(self.socket.recv(65536))
        if self.missing < 0:
            raise subjects.Unavailable("a reply of Redis is longer than the first one")
        return self.missing == 0


def run(clients, depth, until):
    """Sends batches on all connections until a time; returns the number of commands."""
    done = 0
    with selectors.DefaultSelector() as ready:
        for client in clients:
            ready.register(client.socket, selectors.EVENT_READ, client)
            client.send()
        while ready.get_map():
            events = ready.select(5)
            if not events:
                raise subjects.Unavailable("Redis does not reply")
            now = time.monotonic()
            for key, _ in events:
                if key.data.receive():
                    done += depth
                    if now < until:
                        key.data.send()
                    else:
                        ready.unregister(key.fileobj)
    return done
