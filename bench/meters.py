"""Counts a gateway's system calls, instructions and commands to Redis under load."""

import collections
import re
import selectors
import socket
import subprocess
import time

# The maximum time between two responses, in seconds.
TIMEOUT = 60
# The interval of requests in the slow half of a measurement. The access log is flushed every 20 ms, so at this
# interval the log's thread wakes as often as under full load.
TRICKLE = 0.005


class Broken(Exception):
    """A response differs from the one that the lane expects: the round is discarded."""


class Clients:
    """Keep-alive connections that send the same request, each time with the next token."""

    def __init__(self, port, path, tokens, expected, connections, fields=""):
        self.head, self.tokens = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{fields}", tokens
        self.expected = f"HTTP/1.1 {expected} ".encode()
        self.address, self.sockets = ("127.0.0.1", port), [None] * connections
        self.connect()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def connect(self):
        """Reopens every connection."""
        self.close()
        self.sockets = [socket.create_connection(self.address, TIMEOUT) for _ in self.sockets]

    def close(self):
        for one in filter(None, self.sockets):
            one.close()

    def request(self, total):
        """Sends `total` requests, on each connection as soon as it has its response; returns the seconds."""
        began = time.monotonic()
        with selectors.DefaultSelector() as ready:
            for one in self.sockets[:total]:
                ready.register(one, selectors.EVENT_READ)
                self.send(one)
            left = total - len(self.sockets)
            while ready.get_map():
                events = ready.select(TIMEOUT)
                if not events:
                    raise Broken("no response")
                for key, _ in events:
                    self.take_response(key.fileobj)
                    if left > 0:
                        left -= 1
                        self.send(key.fileobj)
                    else:
                        ready.unregister(key.fileobj)
        return time.monotonic() - began

    def trickle(self, seconds):
        """Sends requests at a slow pace for a time; returns their number."""
        began, sent = time.monotonic(), 0
        while (now := time.monotonic()) < began + seconds:
            self.send(self.sockets[0])
            self.take_response(self.sockets[0])
            sent += 1
            time.sleep(max(0, TRICKLE - (time.monotonic() - now)))
        return sent

    def send(self, one):
        credential = ""
        if self.tokens:
            if not (token := next(self.tokens, None)):
                raise Broken("no token is left")
            credential = f"Authorization: Bearer {token}\r\n"
        one.sendall(f"{self.head}{credential}\r\n".encode())

    def take_response(self, one):
        response = self.receive(one)
        while b"\r\n\r\n" not in response:
            response += self.receive(one)
        head, _, body = response.partition(b"\r\n\r\n")
        if not head.startswith(self.expected):
            raise Broken(head.partition(b"\r\n")[0].decode(errors="replace"))
        left = int(re.search(rb"(?i)\ncontent-length: (\d+)", head)[1]) - len(body)
        while left > 0:
            left -= len(self.receive(one))

    def receive(self, one):
        try:
            piece = one.recv(65536)
        except OSError as error:
            raise Broken(str(error)) from error
        if not piece:
            raise Broken("the connection was closed")
        return piece


class Traced:
    """Runs binaries under strace; counts system calls by name."""

    def __init__(self, binaries, folder, figure):
        self.figure, self.trace = figure, folder / "trace"
        # -D: the tracer is the child, so the started process is the gateway itself.
        command = ["strace", "-D", "-f", "-qq", "-s", "0", "-e", "signal=none", "-o", self.trace]
        self.portcullis, self.examples, self.nginx = wrapped(binaries, folder, command)

    def attach(self, process):
        self.start()

    def start(self):
        self.began = self.trace.stat().st_size

    def take(self):
        return sum(self.by_name().values())

    def by_name(self):
        """Returns the calls since the start. A call that strace prints in two parts counts once."""
        with open(self.trace, "rb") as trace:
            trace.seek(self.began)
            text = trace.read().decode(errors="replace")
        return collections.Counter(re.findall(r"^\d+ +(\w+)\(", text, re.MULTILINE))


class Counted:
    """Runs binaries under callgrind; counts instructions in user space."""

    figure = "instructions"
    # Pingora moves a future of 8.7 KB once per request; without this, each byte of such a move counts.
    TUNABLES = "GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=1000000000"

    def __init__(self, binaries, folder):
        self.folder = folder
        # The control pipes are in the folder, so that a killed process leaves none behind.
        self.prefix = f"--vgdb-prefix={folder}/vgdb"
        # Valgrind runs one thread at a time. Without fair scheduling, a busy thread delays background threads
        # for seconds, and the near cache is no longer valid.
        command = [
            "env", self.TUNABLES, "valgrind", "--quiet", "--tool=callgrind", "--fair-sched=yes", "--instr-atstart=no",
            f"--callgrind-out-file={folder}/callgrind.%p", self.prefix,
        ]
        self.portcullis, self.examples, self.nginx = wrapped(binaries, folder, command)

    def attach(self, process):
        self.pid = process.child.pid
        self.send_command("instrumentation", "on")

    def start(self):
        self.send_command("zero")

    def take(self):
        return int(re.search(r"^(?:totals|summary): (\d+)", self.dump().read_text(), re.MULTILINE)[1])

    def dump(self):
        """Writes the counts since the start to a file; returns it."""
        before = set(self.folder.glob("callgrind.*"))
        self.send_command("dump")
        return (set(self.folder.glob("callgrind.*")) - before).pop()

    def send_command(self, *words):
        command = ["vgdb", f"--pid={self.pid}", self.prefix, " ".join(words)]
        subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT)


def wrapped(binaries, folder, command):
    """Writes scripts, named like the programs, that exec them under a command; returns those of the gateway,
    the folder of the examples, and nginx."""
    examples = folder / "examples"
    examples.mkdir(parents=True)
    words = " ".join(map(str, command))
    for script, program in [
        (folder / "portcullis", binaries.portcullis),
        (examples / "bare", binaries.examples / "bare"),
        (folder / "nginx", binaries.nginx),
    ]:
        script.write_text(f'#!/bin/sh\nexec {words} "{program}" "$@"\n')
        script.chmod(0o755)
    return folder / "portcullis", examples, folder / "nginx"


class Commands:
    """Counts the commands that a Redis has executed, including those in scripts."""

    def __init__(self, port):
        self.connection = socket.create_connection(("127.0.0.1", port), TIMEOUT)

    def start(self):
        self.began = self.so_far()

    def take(self):
        return self.so_far() - self.began

    def so_far(self):
        self.connection.sendall(b"INFO commandstats\r\n")
        reply = b""
        while not (header := re.match(rb"\$(\d+)\r\n", reply)) or len(reply) < header.end() + int(header[1]) + 2:
            reply += self.connection.recv(65536)
        stats = re.findall(rb"cmdstat_([^:]+):calls=(\d+)", reply)
        return sum(int(calls) for name, calls in stats if name != b"info")
