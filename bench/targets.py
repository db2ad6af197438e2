"""The targets, and whether they are met."""

import statistics

import lanes
import load
import tables

# For each path: maximum CPU relative to the tuned bare proxy, maximum instructions, whether those of the bare
# proxy are subtracted, and the minimum of requests/s relative to a subject.
PATHS = [
    (lanes.OPEN, 1.05, 5_000, True, None),
    (lanes.KNOWN, 1.10, 10_000, True, (lanes.LUA, 1.7)),
    (lanes.LEASED, 1.10, 10_000, True, (lanes.LUA, 1.7)),
    (lanes.EXACT, 1.30, 25_000, True, (lanes.LUA, 1.4)),
    (lanes.COLD, 1.5, 60_000, True, None),
    (lanes.DENIED, 0.40, None, False, (load.FLOOR, 2.1)),
    (lanes.DENIED_LEASED, 0.40, 30_000, False, (load.FLOOR, 2.1)),
]
REDIS_AT_MOST = {lanes.KNOWN: 0.5, lanes.LEASED: 0.5, lanes.DENIED_LEASED: 0.5}
# Additional system calls compared with the bare proxy; not zero, because timers make a few per second.
CALLS_AT_MOST = {lanes.KNOWN: 0.05, lanes.LEASED: 0.05, lanes.EXACT: 1.2}


def table(figures):
    """Formats the table of all targets."""
    lines = [*paths(figures["run"] or {}, figures["counts"] or {}), *rest(figures)]
    return tables.rows(["target", "aim", "reached", "result"], lines)


def judged(what, aim, value, digits=2, least=False):
    """Returns a row: the target, the figure, and whether the target is met."""
    sign = "≥" if least else "≤"
    result = "" if value is None else "met" if (value >= aim if least else value <= aim) else "not met"
    return [what, f"{sign} {tables.number(aim, digits)}", tables.number(value, digits), result]


def paths(run, counts):
    for name, cpu, instructions, beyond, rate in PATHS:
        slices = run.get(name, {}).get("slices", [])
        short = name.removeprefix("Portcullis, ")
        yield judged(f"{short}: CPU vs tuned bare Pingora", cpu, load.ratio(slices))
        if rate:
            other, aim = rate
            theirs = load.median(run.get(other, {}).get("slices", []), "rate")
            ours = load.median(slices, "rate")
            yield judged(f"{short}: requests/s vs {other}", aim, ours / theirs if ours and theirs else None, least=True)
        if name in REDIS_AT_MOST:
            yield judged(f"{short}: Redis µs per request", REDIS_AT_MOST[name], load.median(slices, "redis"))
        yield from counted(short, name, instructions, beyond, counts)


def counted(short, name, instructions, beyond, counts):
    taken, floor = counts.get(tables.COUNTED.get(name)), counts.get(tables.COUNTED[load.FLOOR])
    if not taken or not floor or instructions is None:
        return
    beyond_bare = lambda figure: taken[figure] - floor[figure] if {figure} <= taken.keys() & floor.keys() else None
    value = beyond_bare("instructions") if beyond else taken.get("instructions")
    yield judged(f"{short}: instructions{' beyond the bare proxy' if beyond else ''}", instructions, value, 0)
    if name in CALLS_AT_MOST:
        yield judged(f"{short}: additional system calls", CALLS_AT_MOST[name], beyond_bare("syscalls"))


def rest(figures):
    """Yields the rows of latency, start, memory and scale."""
    if figures["latency"]:
        measured, starts = figures["latency"]["lanes"], figures["latency"]["starts"]
        pairs = zip(measured[lanes.KNOWN]["slices"], measured[load.FLOOR]["slices"])
        beside = [ours["p50"] / bare["p50"] for ours, bare in pairs]
        yield judged("one connection, known session: p50 vs bare", 1.1, statistics.median(beside) if beside else None)
        for name, taken in starts.items():
            if name.startswith("Portcullis"):
                yield judged("start to first response, ms", 100, statistics.median(taken), 0)
    if figures["memory"]:
        counts = figures["memory"]["counts"]
        rows = {(kind, subject): taken for kind, subject, taken in figures["memory"]["rows"]}
        for (kind, subject), taken in rows.items():
            bare = rows.get((kind, "Pingora, bare proxy"))
            if subject != "Portcullis" or not bare:
                continue
            for number, ours, theirs in zip(counts, taken[1:], bare[1:]):
                yield judged(f"memory, {number:,} {kind} connections vs bare", 1.1, ours / theirs)
    for what, aim in {"routes": 1.3, "limits": 1.3, "sessions": 1.3}.items():
        taken = (figures["scale"] or {}).get(what, {})
        ratios = [load.ratio(one["slices"]) for size, one in taken.items() if size != "failed"]
        ratios = [ratio for ratio in ratios if ratio]
        yield judged(f"{what}: highest cost vs the smallest size", aim, max(ratios) if ratios else None)
