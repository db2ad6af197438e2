"""A PostgreSQL of a benchmark, and the size and cost of durable sessions in it."""

import os
import pathlib
import signal
import subprocess
import time

import subjects
from api_client import ApiClient
from costs import REFRESHES, Meter, refresh
from processes import Pinning, Unavailable

ROLE = "portcullis"
COPIES = 20_000
# Columns of which each copy has a value of its own.
COPIED = {
    "users": {"id": "gen_random_uuid()::text", "email": "'user-' || n || '@example.com'"},
    "user_sessions": {"id": "md5(n::text) || md5('x' || n)", "user_id": "gen_random_uuid()::text"},
}


def measure(bench, options):
    """Returns bytes per row, and the cost of calls with durable sessions."""
    server = Postgres(bench)
    bench.start_upstream()
    redis_port, _ = bench.start_redis()
    gateway = subjects.Gateway(bench.upstream, f"redis://127.0.0.1:{redis_port}", sessions={"durable": True})
    process = bench.start_gateway(server.use(gateway))
    client = ApiClient(gateway.port)
    meter = Meter({"gateway": process, "database": server.process})
    calls = sequence(server, client, meter, options)
    # The query's own connection is one of them.
    connections = server.number("SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = current_database()")
    bench.stop(process)
    return {
        "rows": {table: server.bytes_each(table, columns) for table, columns in COPIED.items()},
        "calls": calls, "connections": connections, "version": server.text("SHOW server_version"),
    }


def sequence(server, client, meter, options):
    """Makes each kind of call, one at a time; returns microseconds, and bytes of the write-ahead log, per call."""
    people = [
        {"email": f"user{number}@example.com", "password": subjects.PASSWORD} for number in range(options.sign_ins)
    ]
    call = lambda path, body=None, token=None: client.call("POST", f"auth/{path}", token, body)
    for user in people:
        call("register", user)
    meter.idle()
    taken = {}

    def each(name, action, items):
        log, items = server.log_position(), list(items)
        results, taken[name] = meter.each(action, items)
        taken[name]["log"] = (server.log_position() - log) / len(items)
        return results

    signed_in = each("sign-in", lambda user: call("login", user), people)
    each("refresh", lambda one: refresh(call, one), signed_in * REFRESHES)
    known = lambda one: client.request("GET", "/known", one["access_token"])
    each("request of a known session", known, signed_in * 10)
    each("sign-out", lambda one: call("logout", token=one["access_token"]), signed_in)
    return taken


class Postgres:
    """A server with an empty database. It is not tuned, and does not wait for the disk."""

    def __init__(self, bench):
        folder, self.port = bench.folder / "postgres", subjects.free_port()
        folder.mkdir()
        programs, as_other = programs_folder(), []
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            bench.folder.chmod(0o755)
            subprocess.run(["chown", "nobody", folder], check=True)
            as_other = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        data = folder / "data"
        create = [programs / "initdb", "-D", data, "-U", ROLE, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run([*as_other, *map(str, create)], capture_output=True, text=True, cwd=folder)
        if done.returncode:
            raise Unavailable(f"initdb: {done.stderr[-500:]}")
        serve = [programs / "postgres", "-D", data, "-p", self.port, "-h", "127.0.0.1", "-k", "", "-c", "fsync=off"]
        self.process = bench.start("postgres", Pinning.other, [*as_other, *serve], self.port)
        # At once, without waiting for clients.
        self.process.ends_by = signal.SIGINT
        self.psql = programs / "psql"
        deadline = time.monotonic() + 30
        while True:
            try:
                self.text("SELECT 1")
                return
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def use(self, gateway):
        """Makes a gateway use this database instead of SQLite."""
        gateway.database = f"postgres://{ROLE}@127.0.0.1:{self.port}/postgres?sslmode=disable"
        return gateway

    def text(self, sql):
        command = [self.psql, "-h", "127.0.0.1", "-p", self.port, "-U", ROLE, "-d", "postgres", "-AtqX", "-c", sql]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"psql: {done.stderr.strip()[:500]}")
        return done.stdout.strip()

    def number(self, sql):
        return int(self.text(sql))

    def log_position(self):
        return self.number("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint")

    def bytes_each(self, table, changed):
        """Copies one row of a table many times; returns the bytes per row with its indexes."""
        self.text(f"CREATE TABLE one AS SELECT * FROM {table} LIMIT 1; TRUNCATE {table} CASCADE")
        columns = self.text(
            "SELECT string_agg(quote_ident(attname), ',' ORDER BY attnum) FROM pg_attribute "
            "WHERE attrelid = 'one'::regclass AND attnum > 0"
        ).split(",")
        values = ",".join(changed.get(column, column) for column in columns)
        self.text(
            f"INSERT INTO {table} ({','.join(columns)}) SELECT {values} FROM one, generate_series(1, {COPIES}) n; "
            "DROP TABLE one"
        )
        return round(self.number(f"SELECT pg_total_relation_size('{table}')") / COPIES)


def programs_folder():
    """Returns the folder of the newest version, which Debian keeps off the path."""
    versions = sorted(pathlib.Path("/usr/lib/postgresql").glob("*"), key=lambda path: float(path.name))
    if not versions:
        raise Unavailable("PostgreSQL is required and not installed (apt-get install postgresql)")
    return versions[-1] / "bin"
