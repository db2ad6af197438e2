"""The targets, and whether they are met."""

import statistics

import lanes
import load
import tables

# For each path: what must be reached and what is aimed at, as instructions, CPU relative to the tuned bare
# Pingora, and CPU relative to the bare nginx.
PATHS = {
    lanes.OPEN: [(18_000, 14_000), (0.60, 0.52), (1.05, 0.90)],
    lanes.KNOWN: [(24_000, 17_000), (0.65, 0.55), (1.15, 1.00)],
    lanes.LEASED: [(27_000, 19_000), (0.68, 0.57), (1.20, 1.03)],
    lanes.EXACT: [(36_000, 22_000), (0.82, 0.68), (1.45, 1.25)],
    lanes.COLD: [(105_000, 80_000), (1.60, 1.35), None],
    lanes.DENIED: [(15_000, 10_000), (0.34, 0.28), (0.62, 0.50)],
    lanes.DENIED_LEASED: [(15_000, 10_000), (0.34, 0.28), (0.62, 0.50)],
    lanes.UNAUTHENTICATED: [(12_000, 9_000), (0.32, 0.28), None],
}
# System calls of a request, on one connection and on 64.
CALLS = {
    lanes.OPEN: (6, 4.2), lanes.KNOWN: (6, 4.2), lanes.LEASED: (6, 4.2), lanes.EXACT: (9, 4.4),
    lanes.DENIED: (3, 2.2), lanes.DENIED_LEASED: (3, 2.2),
}
# Requests per second, relative to nginx with Lua.
RATES = {lanes.KNOWN: 2.2, lanes.LEASED: 2.2, lanes.EXACT: 1.4}
REDIS_AT_MOST = {lanes.KNOWN: 0.5, lanes.LEASED: 0.5, lanes.DENIED_LEASED: 0.5}
# Instructions of a request with the head of a browser.
BROWSER = (32_000, None)
# KiB of one connection beyond the process.
MEMORY = {"active": (16, 12), "idle": (4, 3), "WebSocket": (12, None)}
# Milliseconds of a callback beside the provider's own time.
CALLBACK = 3
# The highest cost relative to the smallest size.
SCALE = {"routes": 1.3, "limits": 1.3, "sessions": 1.3}


def table(figures):
    """Formats the table of all targets."""
    lines = [*paths(figures["run"] or {}, figures["counts"] or {}), *rest(figures)]
    return tables.rows(["target", "must", "stretch", "reached", "result"], lines)


def judged(what, value, must, stretch=None, digits=2, least=False):
    """Returns a row: the target, the figure, and what is met."""
    sign = "≥" if least else "≤"
    meets = lambda aim: aim is not None and (value >= aim if least else value <= aim)
    result = "" if value is None else "stretch" if meets(stretch) else "met" if meets(must) else "not met"
    aims = [f"{sign} {tables.number(must, digits)}", tables.number(stretch, digits)]
    return [what, *aims, tables.number(value, digits), result]


def paths(run, counts):
    for name, (instructions, pingora, nginx) in PATHS.items():
        slices = run.get(name, {}).get("slices", [])
        short = name.removeprefix("Portcullis, ")
        counted = counts.get(tables.COUNTED[name], {})
        yield judged(f"{short}: instructions", counted.get("instructions"), *instructions, digits=0)
        yield judged(f"{short}: CPU vs tuned bare Pingora", load.ratio(slices), *pingora)
        if nginx:
            yield judged(f"{short}: CPU vs bare nginx", load.ratio(slices, "nginx"), *nginx)
        if name in CALLS:
            for figure, aim in zip(("syscalls", "syscalls at 64"), CALLS[name]):
                connections = "64 connections" if "64" in figure else "one connection"
                # Timers make a few calls per second.
                value = counted.get(figure)
                yield judged(f"{short}: system calls, {connections}", value and round(value, 1), aim, digits=1)
        if name in RATES:
            theirs = load.median(run.get(lanes.LUA, {}).get("slices", []), "rate")
            ours = load.median(slices, "rate")
            rate = ours / theirs if ours and theirs else None
            yield judged(f"{short}: requests/s vs {lanes.LUA}", rate, RATES[name], least=True)
        if name in REDIS_AT_MOST:
            yield judged(f"{short}: Redis µs per request", load.median(slices, "redis"), REDIS_AT_MOST[name])
    browser = counts.get("no auth, browser", {}).get("instructions")
    yield judged("no auth, a browser's head of 17 fields: instructions", browser, *BROWSER, digits=0)
    tls = run.get(lanes.TLS, {}).get("slices", [])
    bare = load.median(run.get(lanes.BARE_TLS, {}).get("slices", []), "cpu")
    yield judged("HTTP/2 with TLS: CPU vs tuned bare Pingora", load.ratio(tls) if bare else None, 1.3)


def rest(figures):
    """Yields the rows of latency, start, memory, callbacks and scale."""
    if figures["latency"]:
        measured, starts = figures["latency"]["lanes"], figures["latency"]["starts"]
        pairs = zip(measured[lanes.KNOWN]["slices"], measured[load.FLOOR]["slices"])
        beside = [ours["p50"] / bare["p50"] for ours, bare in pairs]
        value = statistics.median(beside) if beside else None
        yield judged("one connection, known session: p50 vs tuned bare Pingora", value, 1.0)
        for name, taken in starts.items():
            if name.startswith("Portcullis"):
                yield judged("start to first response, ms", statistics.median(taken), 100, digits=0)
    if figures["memory"]:
        most = figures["memory"]["counts"][-1]
        for kind, subject, taken in figures["memory"]["rows"]:
            if subject == "Portcullis":
                each = (taken[-1] - taken[0]) * 1024 / most
                yield judged(f"memory of one {kind} connection, KiB", each, *MEMORY[kind], digits=1)
    for store, taken in (figures["stories"] or {}).items():
        value = load.median(taken["slices"], "beside")
        yield judged(f"sign-in at a provider, {store}: ms of a callback beside the provider", value, CALLBACK)
    for what, aim in SCALE.items():
        taken = (figures["scale"] or {}).get(what, {})
        ratios = [load.ratio(one["slices"]) for size, one in taken.items() if size != "failed"]
        ratios = [ratio for ratio in ratios if ratio]
        yield judged(f"{what}: highest cost vs the smallest size", max(ratios) if ratios else None, aim)
