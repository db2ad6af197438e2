"""Writes `docs/capacity.md` from the stored results of `bench/capacity`, and those of `bench/memory`."""

import re
import string

import lanes
import load
import results
import sizing
from builds import ROOT
from tables import number, rows

ABSENT = "Not measured in this run.\n"
PARTS = ["entries", "sessions", "requests", "calls", "fleet", "saturation", "database"]
# Microseconds below which a difference between a loaded and an idle fleet is noise.
NOISE = 0.5
REQUESTS = {
    lanes.OPEN: "route with `auth: none`",
    lanes.KNOWN: "known session: in the near cache, no limit",
    lanes.LEASED: "the same with a leased limit, a busy counter",
    lanes.EXACT: "the same with an exact limit",
    lanes.COLD: "a session that this gateway has not used for ten seconds",
}


def write():
    """Writes the document from the available results."""
    parts = {part: results.load(f"capacity-{part}") for part in PARTS}
    parts["memory"] = results.load("memory")
    figures = {name: part["figures"] if part else None for name, part in parts.items()}
    made = {
        name: make(figures[part]) if figures[part] else ABSENT
        for name, (part, make) in TABLES.items()
    }
    complete = sizing.is_complete(figures)
    made["units"] = sizing.units(figures) if complete else ABSENT
    made["sizes"] = sizing.table(figures) if complete else ABSENT
    made["assumptions"] = sizing.assumptions()
    made["origin"] = origin(parts)
    made["gateways"] = figures["fleet"]["gateways"] if figures["fleet"] else "many"
    template = string.Template((ROOT / "bench" / "capacity.md").read_text())
    text = re.sub(r"\n{3,}", "\n\n", template.substitute(made))
    (ROOT / "docs" / "capacity.md").write_text(text)
    print(f"written to {ROOT / 'docs' / 'capacity.md'}")


def entries(figures):
    return rows(["entry", "bytes in Redis"], [[name, number(size)] for name, size in figures.items()])


def sessions(figures):
    head = [
        "cached sessions", "gateway MiB", "bytes per session", "bytes in Redis per session", "CPU µs/req",
        "uses written per request", "Redis µs per use",
    ]
    empty = figures[0]["gateway_mib"]
    lines = []
    for row in figures:
        each = (row["gateway_mib"] - empty) * 2**20 / row["sessions"] if row["sessions"] else None
        lines.append([
            number(row["sessions"]), number(row["gateway_mib"], 1), number(each), number(row["redis_bytes"]),
            number(row.get("cpu"), 1), number(row.get("uses"), 2), number(row.get("redis_per_use"), 1),
        ])
    return rows(head, lines)


def connections(figures):
    lines = []
    for kind, subject, taken in figures["rows"]:
        if subject == "Portcullis":
            each = (taken[-1] - taken[0]) * 1024 / figures["counts"][-1]
            lines.append([kind, number(each, 1), number(each * 1e6 / 2**20, 1)])
    return rows(["connection", "KiB each", "GiB per million"], lines)


def requests(figures):
    lines = []
    for name, words in REQUESTS.items():
        slices = figures.get(name, {}).get("slices")
        if slices:
            cpu, redis = (load.median(slices, figure) for figure in ("cpu", "redis"))
            lines.append([words, number(cpu, 1), number(redis, 1), number(cpu / 10, 1), number((redis or 0) / 10, 1)])
    each = "% of a core per 1,000/s"
    return rows(["request", "gateway µs", "Redis µs", f"gateway, {each}", f"Redis, {each}"], lines)


def calls(figures):
    lines = [
        [name, number(taken["gateway"]), number(taken["redis"]), number(1e6 / taken["gateway"])]
        for name, taken in figures.items()
    ]
    return rows(["call", "gateway µs", "Redis µs", "per second and gateway core"], lines)


def idle(figures):
    lines = [
        [
            number(row["gateways"]), number(row["connections"]), number(row.get("connections_mib"), 1),
            number(row["commands"]),
            number(row["redis"] * 100, 1), number(row["gateway"] * 100, 1), number(row["resident_mib"], 1),
        ]
        for row in figures["idle"]
    ]
    return rows([
        "idle gateways", "connections to Redis", "their memory in Redis, MiB", "commands/s", "Redis, % of a core",
        "each gateway, % of a core", "each gateway, MiB",
    ], lines)


def mixes(figures):
    lines = [
        [
            name, number(row["rate"]), above_noise(row["redis"]),
            number(1e6 / row["redis"] if row["redis"] >= NOISE else None),
        ]
        for name, row in figures["mixes"].items()
    ]
    head = ["traffic over all gateways", "requests/s here", "Redis µs per request", "requests/s per Redis core"]
    return rows(head, lines)


def invalidations(figures):
    many = figures["gateways"]
    lines = [
        [
            name, number(row["write"], 1), number(row["redis"], 2), number(row["write"] + row["redis"] * many, 1),
            above_noise(row["gateway"]),
        ]
        for name, row in figures["invalidations"].items()
    ]
    return rows([
        "changes", "Redis µs per change without gateways", "Redis µs more per gateway",
        f"Redis µs per change with {many} gateways", "µs per change at each gateway",
    ], lines)


def revocations(figures):
    lines = []
    for name, row in figures["revocations"].items():
        ended, bounds = row["ended"], [row[f"lag_{share}"] for share in (50, 99, 100)]
        lines.append([
            name, number(ended["sessions"]), number(ended["sessions"] / ended["seconds"]),
            *(f"≤ {bound * 1000:g}" if bound else "–" for bound in bounds), number(row["observed"]),
            above_noise(ended.get("redis")), above_noise(ended.get("gateway", 0) / figures["gateways"]),
        ])
    return rows([
        "revocations", "sessions", "per second", "p50 ms", "p99 ms", "longest ms", "observed",
        "Redis µs per session", "µs per session at each gateway",
    ], lines)


def above_noise(micros):
    return number(micros if micros and micros >= NOISE else None, 1)


def saturation(figures):
    lines = [
        [
            row["operation"], number(row["depth"]), number(row["redis"], 1), number(1e6 / row["redis"]),
            number(row["rate"]),
        ]
        for row in figures
    ]
    head = ["operation", "commands under way per connection", "Redis µs", "per second and core", "per second here"]
    return rows(head, lines)


def database(figures):
    text = rows(["row", "bytes with indexes"], [[f"`{name}`", number(size)] for name, size in figures["rows"].items()])
    lines = [
        [name, number(taken["gateway"]), number(taken["database"]), number(taken["log"])]
        for name, taken in figures["calls"].items()
    ]
    head = ["call, with durable sessions", "gateway µs", "PostgreSQL µs", "write-ahead log bytes"]
    return text + "\n" + rows(head, lines)


def origin(parts):
    """Returns the machine, and date, commit and build of each part."""
    there = {name: part["of"] for name, part in parts.items() if part}
    if not there:
        return ABSENT
    machine = next(iter(there.values()))["machine"]
    text = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {machine['system']}, "
        f"Linux {machine['kernel']}.\n\n"
    )
    lines = [
        [
            name, of["date"], f"`{of['commit']}`", of["build"] + (", quick" if "quick" in of["options"] else ""),
            f"{of['load_before']:.1f}",
        ]
        for name, of in there.items()
    ]
    versions = results.versions()
    found = ", ".join(f"{name} {versions[name]}" for name in ("rustc", "Redis", "nginx", "wrk") if name in versions)
    return text + rows(["part", "date", "commit", "build", "load average before"], lines) + f"\nVersions: {found}.\n"


# For each placeholder of the template: the part with its figures, and what formats them.
TABLES = {
    "entries": ("entries", entries), "sessions": ("sessions", sessions), "connections": ("memory", connections),
    "requests": ("requests", requests), "calls": ("calls", calls), "idle": ("fleet", idle),
    "mixes": ("fleet", mixes), "invalidations": ("fleet", invalidations), "revocations": ("fleet", revocations),
    "saturation": ("saturation", saturation), "database": ("database", database),
}
