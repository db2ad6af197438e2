"""A client of Redis that reads its meters."""

import socket

# Commands that are sent before their replies are read.
PIPELINED = 500


class Redis:
    def __init__(self, port):
        self.connection = socket.create_connection(("127.0.0.1", port), 60)
        self.replies = self.connection.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def call(self, *words):
        return self.pipeline([words])[0]

    def pipeline(self, commands):
        """Returns the replies, in order."""
        replies = []
        for first in range(0, len(commands), PIPELINED):
            batch = commands[first:first + PIPELINED]
            self.connection.sendall(b"".join(map(encoded, batch)))
            replies += [self.reply() for _ in batch]
        return replies

    def reply(self):
        line = self.replies.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise OSError(f"Redis: {rest.decode()}")
        if kind == b"$":
            return None if rest == b"-1" else self.replies.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest

    def info(self, section):
        lines = self.call("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def cpu_seconds(self):
        """Returns user and system time of the server."""
        info = self.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    def memory(self):
        """Returns the bytes of the data, without client buffers."""
        info = self.info("memory")
        return int(info["used_memory"]) - int(info.get("mem_clients_normal", 0))

    def calls(self, command):
        """Returns how often a command has been executed, also in scripts."""
        stats = self.info("commandstats").get(f"cmdstat_{command}")
        return int(stats.split(",")[0].removeprefix("calls=")) if stats else 0

    def keys(self):
        return set(self.call("KEYS", "*"))


def encoded(words):
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
