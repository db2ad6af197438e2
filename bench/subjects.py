"""What is measured: building, starting, pinning and stopping the processes of a bench."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
# The gateway has core 0 for itself; upstream, Redis and load generator share core 1.
GATEWAY_CORE, OTHER_CORE = ("0", "1")
# For a process to get ready: under valgrind on a busy machine that takes long.
PATIENCE = 90
PASSWORD = "a password for the bench only"


# What brings a command on Debian; the others come with this repository.
PACKAGES = {
    "wrk": "apt-get install wrk",
    "nginx": "apt-get install nginx-light",
    "redis-server": "apt-get install redis-server",
    "taskset": "apt-get install util-linux",
    "strace": "apt-get install strace",
    "valgrind": "apt-get install valgrind",
    "vgdb": "apt-get install valgrind",
    "cargo": "https://rustup.rs",
}


def need(*commands):
    """Ends the run, naming whatever is not installed."""
    # Where Debian keeps servers, which is not on everybody's path.
    os.environ["PATH"] += os.pathsep + "/usr/local/sbin:/usr/sbin"
    missing = [command for command in commands if not shutil.which(command)]
    for command in missing:
        print(f"{command} is needed and is not installed ({PACKAGES[command]})", file=sys.stderr)
    if missing:
        sys.exit(1)


def need_cores(count):
    """Ends the run where processes would share a core that is meant for one of them."""
    if len(os.sched_getaffinity(0)) < count:
        sys.exit(f"{count} cores are needed: one for the gateway, one for the rest")


def common_arguments(parser):
    """What every bench can be told about the builds."""
    parser.add_argument("--debug", action="store_true", help="debug builds, to try the script itself")
    parser.add_argument(
        "--gateway", type=pathlib.Path, metavar="PATH",
        help="measure this binary instead of building one; the examples beside it are used if they are there",
    )


def build_words(options):
    """What is said of the builds above a table."""
    if options.gateway:
        return f"gateway {options.gateway}"
    return "debug builds, no figures to quote" if options.debug else "release builds"


class Binaries:
    """The gateway, and the examples that a bench needs, built as far as they have to be."""

    def __init__(self, options, *examples):
        profile = "debug" if options.debug else "release"
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / profile
        self.examples = target / "examples"
        self.portcullis = target / "portcullis"
        if options.gateway:
            self.portcullis = options.gateway.resolve()
            beside = self.portcullis.parent / "examples"
            if all((beside / example).exists() for example in examples):
                self.examples = beside
                return
        wanted = [] if options.gateway else [["--bin", "portcullis"]]
        wanted += [["--example", example] for example in examples]
        need("cargo")
        for one in wanted:
            release = [] if options.debug else ["--release"]
            subprocess.run(["cargo", "build", "--quiet", *release, *one], cwd=ROOT, check=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A process pinned to a core, with its children's figures."""

    def __init__(self, name, core, command, folder):
        self.log = open(folder / f"{name}.log", "wb")
        self.child = subprocess.Popen(
            ["taskset", "-c", core, *map(str, command)],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )

    def pids(self):
        found = [self.child.pid]
        for task in pathlib.Path(f"/proc/{self.child.pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
        return found

    def cpu_seconds(self):
        """User and system time so far, of the process and its workers."""
        total = 0
        for pid in self.pids():
            # After the name, which is in brackets and may hold spaces: fields 14 and 15.
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def resident_mib(self):
        total = 0
        for pid in self.pids():
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
        return total / 1024

    def stop(self):
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.log.close()


class Bench:
    """Everything that runs during one bench, in a folder of its own."""

    def __init__(self, binaries):
        self.binaries = binaries
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="portcullis-bench-"))
        self.processes = []
        self.upstream = None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for process in reversed(self.processes):
            process.stop()
        if kind is None:
            shutil.rmtree(self.folder)
        else:
            print(f"logs are in {self.folder}", file=sys.stderr)

    def start(self, name, core, command, port):
        process = Process(name, core, command, self.folder)
        self.processes.append(process)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if process.child.poll() is not None:
                sys.exit(f"{name} ended at once:\n{(self.folder / f'{name}.log').read_text()}")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return process
            except OSError:
                time.sleep(0.02)
        sys.exit(f"{name} did not listen on port {port}")

    def start_upstream(self):
        """nginx that returns 1 KiB."""
        self.upstream = free_port()
        body = "x" * 1024
        server = f'location / {{ return 200 "{body}"; }}'
        return self.nginx("upstream", OTHER_CORE, self.upstream, "", server)

    def start_nginx_proxy(self):
        port = free_port()
        upstream = f"upstream behind {{ server 127.0.0.1:{self.upstream}; keepalive 128; }}"
        server = (
            "location / { proxy_pass http://behind; proxy_http_version 1.1; "
            'proxy_set_header Connection ""; proxy_set_header Host $host; }'
        )
        return port, self.nginx("nginx", GATEWAY_CORE, port, upstream, server)

    def nginx(self, name, core, port, http, server):
        conf = self.folder / f"{name}.conf"
        temporary = "".join(
            f"{kind}_temp_path {self.folder}/{name}-{kind}; "
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        conf.write_text(
            f"daemon off; worker_processes 1; pid {self.folder}/{name}.pid; error_log stderr;\n"
            "events { worker_connections 4096; }\n"
            f"http {{ access_log off; keepalive_requests 1000000000; {temporary}\n{http}\n"
            f"server {{ listen 127.0.0.1:{port} backlog=4096; {server} }} }}\n"
        )
        return self.start(name, core, ["nginx", "-e", "stderr", "-c", conf], port)

    def start_bare(self):
        port = free_port()
        command = [
            self.binaries.examples / "bare", f"127.0.0.1:{port}", f"127.0.0.1:{self.upstream}",
        ]
        return port, self.start("bare", GATEWAY_CORE, command, port)

    def start_redis(self):
        port = free_port()
        command = [
            "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
        ]
        return port, self.start("redis", OTHER_CORE, command, port)

    def start_portcullis(self, store, log_format="text", sessions=None, log_level="error"):
        """A gateway with six routes: /open, /known, /leased, /full, /limited and /denied."""
        port, admin = free_port(), free_port()
        user_limit = {"algorithm": "sliding_window", "window": "1m", "key": "user", "consistency": "exact"}
        config = {
            "listeners": [{"bind": f"127.0.0.1:{port}"}],
            "admin": {"bind": f"127.0.0.1:{admin}"},
            "store": {"url": store, "timeout": "1s"},
            "database": {"url": f"sqlite:{self.folder}/people.db"},
            "tokens": {
                "access_ttl": "24h",
                "signing": {"algorithm": "HS256", "secret": "a secret for the bench only, 0123456789"},
            },
            "sessions": sessions or {},
            "identity": {"builtin": {
                "registration": "open",
                "sign_in_limits": {"attempts_per_address": {"limit": 1000000, "window": "1m"}},
            }},
            "limits": {
                "wide": {**user_limit, "limit": 1000000000},
                "leased": {**user_limit, "limit": 1000000000, "consistency": "leased"},
                "spent": {**user_limit, "limit": 1, "window": "1h"},
                "spent-leased": {**user_limit, "limit": 1, "window": "1h", "consistency": "leased"},
            },
            "upstreams": {"behind": {"servers": [f"http://127.0.0.1:{self.upstream}"]}},
            "routes": [
                {"name": "open", "match": {"prefix": "/open"}, "auth": "none", "upstream": "behind"},
                {"name": "known", "match": {"prefix": "/known"}, "auth": "required",
                 "upstream": "behind"},
                {"name": "leased", "match": {"prefix": "/leased"}, "auth": "required",
                 "limits": ["leased"], "upstream": "behind"},
                {"name": "full", "match": {"prefix": "/full"}, "auth": "required",
                 "limits": ["wide"], "upstream": "behind"},
                {"name": "limited", "match": {"prefix": "/limited"}, "auth": "required",
                 "limits": ["spent"], "upstream": "behind"},
                {"name": "denied", "match": {"prefix": "/denied"}, "auth": "required",
                 "limits": ["spent-leased"], "upstream": "behind"},
            ],
        }
        # JSON is YAML. In a folder of its own: the gateway watches the folder, and logs are written here.
        file = self.folder / "config" / f"portcullis-{port}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(config, indent=2))
        command = [
            self.binaries.portcullis, "run", "--config", file,
            "--log-level", log_level, "--log-format", log_format,
        ]
        process = self.start("portcullis", GATEWAY_CORE, command, port)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{admin}/ready", timeout=1).close()
                return port, process
            except OSError:
                if time.monotonic() > deadline:
                    sys.exit("portcullis does not get ready")
                time.sleep(0.05)

    def sign_in(self, port, count):
        """Registers users through the API; writes one access token a line, returns the file."""

        def register(number):
            body = json.dumps({"email": f"user{number}@example.com", "password": PASSWORD})
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/api/v1/auth/register", body.encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["data"]["access_token"]

        with ThreadPoolExecutor(2) as pool:
            tokens = list(pool.map(register, range(count)))
        file = self.folder / "tokens"
        file.write_text("\n".join(tokens) + "\n")
        return file
