"""The processes of a benchmark: upstream, Redis, and the proxies and gateways to compare."""

import json
import pathlib
import signal
import subprocess
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import users
from builds import Binaries, arguments as common_arguments, words as build_words  # noqa: F401
from gateway import ADMIN_TOKEN, Gateway, config_folder
from processes import (  # noqa: F401
    TIMEOUT, ROOT, Pinning, Process, Processes, Unavailable, allow_files, connections_allowed,
    free_port, missing, need, need_cores, pinned,
)

PASSWORD = "a password for the bench only"
HERE = ROOT / "bench"
# The paths of the Lua modules for nginx in Debian's packages.
LUA_MODULES = ("/usr/lib/nginx/modules/ndk_http_module.so", "/usr/lib/nginx/modules/ngx_http_lua_module.so")


class Bench(Processes):
    """The processes of one benchmark."""

    def __init__(self, binaries):
        super().__init__()
        self.binaries = binaries
        self.upstream = None

    def start_upstream(self):
        """Starts nginx as an upstream that returns 1 KiB."""
        self.upstream = free_port()
        body = "x" * 1024
        server = f'location / {{ return 200 "{body}"; }}'
        return self.nginx("upstream", Pinning.other, self.upstream, "", server, workers=1)

    def start_redis(self):
        port = free_port()
        command = [
            "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
        ]
        return port, self.start("redis", Pinning.other, command, port)

    def start_nginx_proxy(self, upstream=None, upgrades=False):
        """Starts nginx as a bare proxy; with `upgrades`, every request is forwarded as a WebSocket's."""
        port = free_port()
        upgrade = "proxy_set_header Upgrade $http_upgrade;" if upgrades else ""
        server = f"location / {{ {self.proxy_pass('upgrade' if upgrades else '')} {upgrade} }}"
        program = self.binaries.nginx
        return port, self.nginx("nginx", Pinning.gateway, port, self.behind(upstream), server, program=program)

    def start_nginx_lua(self, redis):
        """Starts nginx with the full work in Lua; see bench/nginx/gateway.lua."""
        for module in LUA_MODULES:
            need_file(module, "apt-get install libnginx-mod-http-lua lua-resty-core lua-cjson")
        port = free_port()
        modules = "".join(f"load_module {module}; " for module in LUA_MODULES)
        http = (
            f"{self.behind()}\nlua_package_path '{HERE}/nginx/?.lua;;';\n"
            f'init_by_lua_block {{ gateway = require("gateway"); gateway.start({redis}, "{users.SECRET}") }}'
        )
        # With an access log, as the gateway has one.
        server = (
            f"access_log {self.folder}/nginx-lua-access.log combined buffer=64k flush=1s; "
            "location / { set $user ''; set $session ''; access_by_lua_block { gateway.access() } "
            f"proxy_set_header X-User-Id $user; proxy_set_header X-Session-ID $session; "
            f"proxy_set_header Authorization ''; {self.proxy_pass()} }}"
        )
        return port, self.nginx("nginx-lua", Pinning.gateway, port, http, server, modules=modules)

    def behind(self, upstream=None):
        return f"upstream behind {{ server 127.0.0.1:{upstream or self.upstream}; keepalive 128; }}"

    def proxy_pass(self, connection=""):
        return (
            "proxy_pass http://behind; proxy_http_version 1.1; "
            f'proxy_set_header Connection "{connection}"; proxy_set_header Host $host;'
        )

    def nginx(self, name, core, port, http, server, modules="", workers=None, program="nginx"):
        conf = self.folder / f"{name}.conf"
        temporary = "".join(
            f"{kind}_temp_path {self.folder}/{name}-{kind}; "
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        # A single worker does the master's part itself, so that one process is all there is to measure.
        workers = workers or Pinning.workers()
        master = "master_process off; " if workers == 1 else ""
        conf.write_text(
            f"{modules}daemon off; {master}worker_processes {workers}; "
            f"pid {self.folder}/{name}.pid; error_log stderr;\n"
            "events { worker_connections 65536; }\n"
            f"http {{ access_log off; keepalive_requests 1000000000; {temporary}\n{http}\n"
            f"server {{ listen 127.0.0.1:{port} backlog=16384; {server} }} }}\n"
        )
        return self.start(name, core, [program, "-e", "stderr", "-c", conf], port)

    def start_bare(self, upstream=None, certificate=None):
        """Starts `examples/bare`, with TLS and HTTP/2 if a certificate and its key are given."""
        port = free_port()
        command = self.bare_command(port, upstream, certificate)
        return port, self.end_by_interrupt(self.start("bare-tls" if certificate else "bare", Pinning.gateway, command, port))

    def end_by_interrupt(self, process):
        """Makes the process stop at once; a graceful stop of Pingora takes minutes."""
        process.ends_by = signal.SIGINT
        return process

    def bare_command(self, port, upstream=None, certificate=None):
        return [
            self.binaries.examples / "bare", f"127.0.0.1:{port}", f"127.0.0.1:{upstream or self.upstream}",
            *([Pinning.workers(), *(certificate or [])] if certificate or Pinning.workers() > 1 else []),
        ]

    def start_plain(self):
        """Starts `bench/plain`."""
        port = free_port()
        command = [
            self.binaries.plain(), f"127.0.0.1:{port}", f"127.0.0.1:{self.upstream}", Pinning.workers(),
        ]
        return port, self.end_by_interrupt(self.start("plain", Pinning.gateway, command, port))

    def start_node(self, redis):
        """Starts the full work in Node; see bench/node/server.js."""
        absent = missing("node", "npm")
        if absent:
            raise Unavailable("; ".join(absent))
        if not (HERE / "node" / "node_modules").exists():
            done = subprocess.run(
                ["npm", "ci", "--no-audit", "--no-fund"], cwd=HERE / "node", capture_output=True, text=True,
            )
            if done.returncode:
                raise Unavailable(f"npm ci in bench/node: {done.stderr.strip()[-500:]}")
        port = free_port()
        environment = {
            "NODE_ENV": "production", "PORT": str(port), "UPSTREAM": str(self.upstream),
            "REDIS": str(redis), "SECRET": users.SECRET, "WORKERS": str(Pinning.workers()),
        }
        command = ["node", HERE / "node" / "server.js"]
        return port, self.start("node", Pinning.gateway, command, port, environment)

    def start_portcullis(self, store, log_format="text", sessions=None, log_level="error"):
        """Starts a gateway as configured by `bench/gateway.py`; returns its port and process."""
        gateway = Gateway(self.upstream, store, sessions=sessions)
        return gateway.port, self.start_gateway(gateway, log_format, log_level)

    def start_gateway(self, gateway, log_format="json", log_level="info"):
        """Starts the gateway, with its access log on, and waits until it is ready."""
        command = self.gateway_command(gateway, log_format, log_level)
        process = self.start("portcullis", Pinning.gateway, command, gateway.port)
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{gateway.admin}/ready", timeout=1).close()
                return process
            except OSError:
                if time.monotonic() > deadline or process.ended():
                    log = process.log.read_text()[-2000:].strip()
                    raise Unavailable(f"portcullis did not become ready: {log}") from None
                time.sleep(0.02)

    def gateway_command(self, gateway, log_format="json", log_level="info"):
        return [
            self.binaries.portcullis, "run", "--config", gateway.write(self.folder),
            "--log-level", log_level, "--log-format", log_format,
        ]

    def sign_in(self, port, count):
        """Registers users through the API; writes one access token per line and returns the file."""

        def register(number):
            body = json.dumps({"email": f"user{number}@example.com", "password": PASSWORD})
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/api/v1/auth/register", body.encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["data"]["access_token"]

        with ThreadPoolExecutor(2) as pool:
            tokens = list(pool.map(register, range(count)))
        file = self.folder / "tokens"
        file.write_text("\n".join(tokens) + "\n")
        return file

    def create_keys(self, gateway, count):
        """Creates API keys, each of a service of its own; writes one per line and returns the file."""

        def create(number):
            body = json.dumps({"service": f"bench-{number}", "name": "bench"})
            request = urllib.request.Request(
                f"http://127.0.0.1:{gateway.admin}/admin/api-keys", body.encode(),
                {"Content-Type": "application/json", "Authorization": f"Bearer {ADMIN_TOKEN}"},
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)["data"]["key"]

        file = self.folder / f"keys-{gateway.port}"
        file.write_text("".join(f"{create(number)}\n" for number in range(count)))
        return file

    def certificate(self):
        """Creates a certificate for localhost; returns the files of it and its key."""
        absent = missing("openssl")
        if absent:
            raise Unavailable(absent[0])
        folder = config_folder(self.folder)
        cert, key = folder / "cert.pem", folder / "key.pem"
        if not cert.exists():
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                 "-nodes", "-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                 "-keyout", key, "-out", cert],
                check=True, capture_output=True,
            )
        return cert, key


def need_file(path, package):
    """Raises `Unavailable` if a file of a package is missing."""
    if not pathlib.Path(path).exists():
        raise Unavailable(f"{path} is required and missing ({package})")
