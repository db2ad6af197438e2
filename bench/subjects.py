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
PASSWORD = "a password for the bench only"


def need(*commands):
    """Ends the run when one of these is not installed."""
    for command in commands:
        if not shutil.which(command):
            sys.exit(f"{command} is needed and is not installed")


def build(release):
    """Builds gateway and bare pass-through; returns the folder with both."""
    profile = ["--release"] if release else []
    for target in (["--bin", "portcullis"], ["--example", "bare"]):
        subprocess.run(["cargo", "build", "--quiet", *profile, *target], cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    return pathlib.Path(target) / ("release" if release else "debug")


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
        deadline = time.monotonic() + 20
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
            self.binaries / "examples" / "bare", f"127.0.0.1:{port}", f"127.0.0.1:{self.upstream}",
        ]
        return port, self.start("bare", GATEWAY_CORE, command, port)

    def start_redis(self):
        port = free_port()
        command = [
            "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
        ]
        return port, self.start("redis", OTHER_CORE, command, port)

    def start_portcullis(self, store):
        """A gateway with three routes: /open, /full and /limited."""
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
            "identity": {"builtin": {
                "registration": "open",
                "sign_in_limits": {"attempts_per_address": {"limit": 1000000, "window": "1m"}},
            }},
            "limits": {
                "wide": {**user_limit, "limit": 1000000000},
                "spent": {**user_limit, "limit": 1, "window": "1h"},
            },
            "upstreams": {"behind": {"servers": [f"http://127.0.0.1:{self.upstream}"]}},
            "routes": [
                {"name": "open", "match": {"prefix": "/open"}, "auth": "none", "upstream": "behind"},
                {"name": "full", "match": {"prefix": "/full"}, "auth": "required",
                 "limits": ["wide"], "upstream": "behind"},
                {"name": "limited", "match": {"prefix": "/limited"}, "auth": "required",
                 "limits": ["spent"], "upstream": "behind"},
            ],
        }
        # JSON is YAML.
        file = self.folder / "portcullis.yaml"
        file.write_text(json.dumps(config, indent=2))
        command = [self.binaries / "portcullis", "run", "--config", file, "--log-level", "error"]
        process = self.start("portcullis", GATEWAY_CORE, command, port)
        deadline = time.monotonic() + 20
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
