"""Starts, pins, observes and stops the processes of a benchmark."""

import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Seconds for a process to become ready; under valgrind on a busy machine this takes long.
TIMEOUT = 90
TICKS = os.sysconf("SC_CLK_TCK")
# How to install a command on Debian; `bench/setup` does so.
PACKAGES = {
    "wrk": "apt-get install wrk",
    "nginx": "apt-get install nginx-light",
    "redis-server": "apt-get install redis-server",
    "taskset": "apt-get install util-linux",
    "h2load": "apt-get install nghttp2-client",
    "openssl": "apt-get install openssl",
    "node": "apt-get install nodejs",
    "npm": "apt-get install npm",
    "strace": "apt-get install strace",
    "valgrind": "apt-get install valgrind",
    "vgdb": "apt-get install valgrind",
    "cargo": "https://rustup.rs",
}


class Unavailable(Exception):
    """A subject cannot be measured; the others can."""


class Pinning:
    """The gateway has core 0 to itself; upstream, Redis and load generator share core 1."""

    gateway, other = "0", "1"

    @classmethod
    def off(cls):
        cls.gateway = cls.other = None

    @classmethod
    def workers(cls):
        """Returns the number of workers of a gateway."""
        return 1 if cls.gateway else len(os.sched_getaffinity(0))


def missing(*commands):
    """Returns a message for each command that is not installed."""
    # Debian installs servers here, which is not on every user's PATH.
    if "/usr/sbin" not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] += os.pathsep + "/usr/local/sbin:/usr/sbin"
    return [
        f"{command} is required and not installed ({PACKAGES[command]})"
        for command in commands if not shutil.which(command)
    ]


def need(*commands):
    """Ends the run if a command is not installed, and lists what is missing."""
    found = missing(*commands)
    for words in found:
        print(words, file=sys.stderr)
    if found:
        sys.exit("run bench/setup to install the missing programs")


def need_cores(count):
    """Ends the run if processes would share a core that is reserved for one of them."""
    if len(os.sched_getaffinity(0)) < count:
        sys.exit(f"{count} cores are required: one for the gateway, one for all other processes")


def allow_files():
    """Raises the limit of open files as far as permitted; returns it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, 65536), max(most, 65536)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def connections_allowed():
    """Returns the number of connections that a proxy can hold, with two sockets for each."""
    return (allow_files() - 400) // 2


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pinned(core, command):
    """Returns the command, pinned to the core."""
    return [*(["taskset", "-c", core] if core else []), *map(str, command)]


class Process:
    """A process on a core; its figures include those of its children."""

    ends_by = signal.SIGTERM

    def __init__(self, name, core, command, folder, environment=None):
        self.name = name
        self.log = folder / f"{name}.log"
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                pinned(core, command), cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **(environment or {})},
            )

    def pids(self):
        found = [self.child.pid]
        for task in pathlib.Path(f"/proc/{self.child.pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
        return found

    def cpu_seconds(self):
        """Returns user and system time of the process and its workers."""
        # The CPU-time clock of another process, as clock_getcpuclockid returns it: in nanoseconds, not in ticks.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self.pids())

    def cpu_split(self):
        """Returns user time and system time of the process and its workers, in seconds, to the tick."""
        user = system = 0
        for pid in self.pids():
            # Fields 14 and 15; the name before them is in parentheses and may contain spaces.
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            user, system = user + int(fields[11]), system + int(fields[12])
        return user / TICKS, system / TICKS

    def resident_mib(self):
        total = 0
        for pid in self.pids():
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
        return total / 1024

    def open_files(self):
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids())

    def ended(self):
        return self.child.poll() is not None

    def stop(self):
        self.child.send_signal(self.ends_by)
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Processes:
    """The processes of one benchmark, with a folder of their own."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="portcullis-bench-"))
        self.running = []

    def __enter__(self):
        # SIGTERM must not leave processes running.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
        return self

    def __exit__(self, kind, *_):
        for process in reversed(self.running):
            process.stop()
        if kind is None:
            shutil.rmtree(self.folder)
        else:
            print(f"logs are in {self.folder}", file=sys.stderr)

    def start(self, name, core, command, port, environment=None):
        """Starts a server and waits until it listens."""
        process = Process(name, core, command, self.folder, environment)
        self.running.append(process)
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            if process.ended():
                raise Unavailable(f"{name} exited at once: {process.log.read_text()[-2000:].strip()}")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return process
            except OSError:
                time.sleep(0.005)
        raise Unavailable(f"{name} did not listen on port {port}")

    def empty_logs(self):
        """Truncates large logs, so that they do not fill the disk; all of them are opened for appending."""
        for log in self.folder.glob("*.log"):
            if log.stat().st_size > 1 << 20:
                os.truncate(log, 0)

    def stop(self, process):
        """Stops one process before the end of the benchmark."""
        process.stop()
        self.running.remove(process)
