"""Loads subjects in turns, in slices of wrk or h2load, and measures the cost of each slice."""

import dataclasses
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import typing

from processes import Pinning, Process, Unavailable, pinned

HERE = pathlib.Path(__file__).resolve().parent
# Attempts at a slice without any response.
STALLS_AT_MOST = 3
# Lost slices after which a lane is abandoned.
LOST_AT_MOST = 5
# The lanes with which others are compared.
FLOOR = "Pingora, bare proxy, tuned"
NGINX = "nginx, bare proxy"


class Stalled(Unavailable):
    """No response arrived: on a busy machine a slice may end before it has begun."""


@dataclasses.dataclass
class Lane:
    """A subject with one kind of request."""

    name: str
    port: int
    path: str
    process: Process
    tokens: pathlib.Path | None = None
    redis: Process | None = None
    # Whether every response must be a 429.
    refused: bool = False
    # Whether it uses HTTP/2 with TLS; all requests then have the first token.
    tls: bool = False
    # No token may be used twice in a slice.
    once: bool = False
    # Runs before each slice; may restart the process.
    prepare: typing.Callable | None = None
    connections: int | None = None
    # Additional seconds of load: many connections take long to open.
    longer: int = 0
    # The number of routes to use in turn; their paths begin with `path`.
    routes: int | None = None
    # Use only every n-th token.
    every: int = 1
    # Header fields beside the credential.
    fields: dict | None = None
    # The gateways of a fleet, if there is more than one: each gets an equal part of the connections.
    ports: list | None = None
    # The lanes to compare with, if they are not the usual ones.
    floor: str = FLOOR
    nginx: str = NGINX


def arguments(parser, slices, seconds):
    parser.add_argument("--slices", type=int, default=slices, help=f"rounds (default {slices})")
    parser.add_argument("--seconds", type=int, default=seconds, help=f"length of a slice (default {seconds})")
    parser.add_argument("--unpinned", action="store_true", help="do not pin processes to cores")


def measure(bench, lanes, upstream, options, connections=64, saved=None):
    """Runs the rounds; returns {name: {"slices": [...], "failed": words or None}}."""
    results = {lane.name: {"slices": [], "failed": None} for lane in lanes}
    # The first round warms pools and caches, and is discarded.
    for number in range(options.slices + 1):
        taken = {}
        for lane in lanes:
            if results[lane.name]["failed"]:
                continue
            try:
                taken[lane.name] = slice_of(lane, upstream, options, connections, judged=number > 0)
            except (Unavailable, OSError, subprocess.SubprocessError) as error:
                lost = results[lane.name]["lost"] = [*results[lane.name].get("lost", []), words(error)]
                print(f"{lane.name}: lost a slice: {words(error)}", file=sys.stderr)
                if len(lost) == LOST_AT_MOST:
                    results[lane.name]["failed"] = words(error)
            bench.empty_logs()
        if number == 0:
            continue
        for lane in lanes:
            if lane.name not in taken:
                continue
            # Compared within each round, in which both had the same conditions.
            for name, other in {"floor": lane.floor, "nginx": lane.nginx}.items():
                taken[lane.name][name] = taken[other]["cpu"] if other in taken else None
            results[lane.name]["slices"].append(taken[lane.name])
        print(f"round {number} of {options.slices}", file=sys.stderr)
        if saved:
            saved(results)
    return results


def words(error):
    """Formats an error in one line."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"not finished after {error.timeout} s"
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def slice_of(*arguments, **more):
    """Runs a slice; repeats it if the machine stalled for its whole duration."""
    for attempt in range(STALLS_AT_MOST):
        try:
            return one_slice(*arguments, **more)
        except Stalled as error:
            if attempt == STALLS_AT_MOST - 1:
                raise
            print(f"{arguments[0].name}: repeated: {error}", file=sys.stderr)


def one_slice(lane, upstream, options, connections, judged):
    if lane.prepare:
        lane.prepare(lane)
    watched = {"cpu": lane.process, "redis": lane.redis, "upstream": upstream}
    watched = {name: process for name, process in watched.items() if process}
    before = seconds_of(watched)
    load = h2load if lane.tls else wrk
    requests, refused, seconds, p50, p99 = load(lane, lane.connections or connections, options)
    after = seconds_of(watched)
    expected = refused > requests * 0.9 if lane.refused else refused == 0
    # In the first round, one request of each user is still below the limit.
    if judged and not expected:
        raise Unavailable(f"{refused} of {requests} responses were not 2xx")
    if lane.once and requests > count_lines(lane.tokens):
        raise Unavailable(f"{requests} requests for fewer sessions: some were used twice")
    cost = {name: (after[name] - before[name]) / requests * 1e6 for name in after}
    return {"rate": requests / seconds, "p50": p50, "p99": p99, "redis": None, **cost}


def seconds_of(watched):
    """Returns the CPU time of each process, and how much of the subject's was spent in the kernel."""
    taken = {name: process.cpu_seconds() for name, process in watched.items()}
    return taken | {"kernel": watched["cpu"].cpu_split()[1]}


def wrk(lane, connections, options):
    """Returns requests, failed requests, seconds, and two percentiles in milliseconds."""
    return run_wrk(lane, connections, options.seconds + lane.longer)


def request_once(lane):
    """Sends one request with each of the lane's tokens, so that the gateway has cached every session."""
    requests, refused, *_ = run_wrk(lane, 64, 900, ONCE="1")
    many = count_lines(lane.tokens)
    if refused or requests < many:
        raise Unavailable(f"{requests} of {many} sessions were used, {refused} rejected")


def run_wrk(lane, connections, seconds, **more):
    environment = {**os.environ, "EVERY": str(lane.every), **more}
    environment |= {"TOKENS": str(lane.tokens)} if lane.tokens else {}
    environment |= {"ROUTES": str(lane.routes)} if lane.routes else {}
    fields = "\n".join(f"{name}: {value}" for name, value in (lane.fields or {}).items())
    environment |= {"FIELDS": fields} if fields else {}
    environment |= {"PORTS": ",".join(map(str, lane.ports))} if lane.ports else {}
    threads = len(lane.ports) if lane.ports else 1
    command = pinned(Pinning.other, [
        "wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", HERE / "requests.lua",
        f"http://127.0.0.1:{lane.port}{lane.path}",
    ])
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:
        output = ""
        for line in process.stdout:
            output += line
            if line == "DONE\n":
                process.send_signal(signal.SIGINT)
    line = re.search(r"^RESULT (.*)", output, re.MULTILINE)
    if not line:
        raise Unavailable(f"wrk: {output[-500:]}")
    requests, refused, micros, p50, p99, broken = map(int, line[1].split())
    if broken:
        raise Unavailable(f"{broken} of {requests} requests got no response")
    if requests == 0:
        raise Stalled("no request got a response")
    return requests, refused, micros / 1e6, p50 / 1000, p99 / 1000


def h2load(lane, connections, options):
    """The same over HTTP/2 with TLS, one request at a time on each connection."""
    log = pathlib.Path(lane.process.log).parent / "h2load.log"
    log.unlink(missing_ok=True)
    token = []
    if lane.tokens:
        with open(lane.tokens) as tokens:
            token = ["--header", f"authorization: Bearer {tokens.readline().strip()}"]
    command = pinned(Pinning.other, [
        "h2load", "-t1", f"-c{connections}", "-m1", f"-D{options.seconds}", f"--log-file={log}", *token,
        f"https://localhost:{lane.port}{lane.path}",
    ])
    output = subprocess.run(command, capture_output=True, text=True, timeout=options.seconds + 20).stdout
    figures = re.search(r"finished in ([\d.]+)s, ([\d.]+) req/s", output)
    statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
    failed = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", output)
    protocol = re.search(r"Application protocol: (\S+)", output)
    if not (figures and statuses and failed) or any(map(int, failed.groups())):
        summary = re.search(r"^requests: .*", output, re.MULTILINE)
        raise Unavailable(f"h2load: {summary[0] if summary else output[-300:]}")
    if not protocol or protocol[1] != "h2":
        raise Unavailable(f"no HTTP/2: {protocol[1] if protocol else 'no protocol was negotiated'}")
    good, *others = map(int, statuses.groups())
    requests = good + sum(others)
    if not requests:
        raise Stalled("no request got a response")
    with open(log) as lines:
        times = sorted(int(line.split("\t")[2]) for line in lines)
    share = lambda part: times[min(int(len(times) * part), len(times) - 1)] / 1000
    return requests, sum(others), float(figures[1]), share(0.5), share(0.99)


def count_lines(file):
    with open(file, "rb") as lines:
        return sum(1 for _ in lines)


def median(slices, figure):
    values = [taken[figure] for taken in slices if taken.get(figure) is not None]
    return statistics.median(values) if values else None


def ratio(slices, other="floor"):
    """Returns the CPU relative to the floor, or to the bare nginx, within each round."""
    values = [taken["cpu"] / taken[other] for taken in slices if taken.get(other)]
    return statistics.median(values) if values else None
