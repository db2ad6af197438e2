"""Tables in Markdown."""

import statistics

import lanes
import load

# The names of the table's lanes in bench/instructions.
COUNTED = {
    load.NGINX: "nginx, bare proxy", load.FLOOR: "bare proxy", lanes.OPEN: "no auth", lanes.KNOWN: "known session",
    lanes.LEASED: "known session, leased limit", lanes.EXACT: "exact limit",
    lanes.COLD: "cold", lanes.DENIED: "denied, exact limit", lanes.DENIED_LEASED: "denied",
    lanes.UNAUTHENTICATED: "no credential", lanes.QUERY: "known session, front proxy",
    lanes.KEY: "known API key",
}


def rows(head, lines):
    """Formats a table; the first column is text, the others are numbers."""
    under = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, under, *lines]) + "\n"


def number(value, digits=0):
    return "–" if value is None else f"{value:,.{digits}f}"


def subjects(measured, counted):
    """Formats the table of `bench/run`; `counted` is the output of `bench/instructions --json`."""
    head = [
        "subject", "req/s", "p50 ms", "p99 ms", "CPU µs/req (lowest)", "in the kernel", "Redis µs", "upstream µs", "CPU vs Pingora",
        "CPU vs nginx",
    ] + (["instructions", "system calls", "at 64 connections"] if counted else [])
    lines, failures = [], []
    for name in [name for name in lanes.NAMES if name in measured]:
        slices = measured[name]["slices"]
        failures += lost_words(name, measured[name])
        if not slices:
            continue
        value = lambda figure: load.median(slices, figure)
        least = min(taken["cpu"] for taken in slices)
        cells = [
            f"**{name}**" if name.startswith("Portcullis") else name,
            number(value("rate")), number(value("p50"), 1), number(value("p99"), 1),
            f"{value('cpu'):.1f} ({least:.1f})", number(value("kernel"), 1), number(value("redis"), 1),
            "–" if name == lanes.DIRECT else number(value("upstream"), 1),
            *(["–"] * 2 if name == lanes.DIRECT else [number(load.ratio(slices, other), 2) for other in ("floor", "nginx")]),
        ]
        if counted:
            taken = counted.get(COUNTED.get(name), {})
            cells += [number(taken.get("instructions"))]
            cells += [number(taken.get(figure), 2) for figure in ("syscalls", "syscalls at 64")]
        lines.append(cells)
    text = rows(head, lines)
    if failures:
        text += "\nIncomplete measurements:\n\n" + "\n".join(failures) + "\n"
    return text


def lost_words(name, taken):
    """Returns a list item if a lane was skipped or abandoned, or has lost slices."""
    lost = taken.get("lost", [])
    if taken["failed"] and not lost:
        return [f"* {name}: {taken['failed']}"]
    given_up = ", then abandoned" if taken["failed"] else ""
    return [f"* {name}: {len(lost)} slices lost{given_up}; the last: {lost[-1]}"] if lost else []


def memory(figures):
    """Formats the table of `bench/memory`."""
    counts = figures["counts"]
    head = ["connections", "subject", "none", *(number(count) for count in counts), "KiB per connection"]
    lines = []
    for kind, subject, taken in figures["rows"]:
        each = (taken[-1] - taken[0]) * 1024 / counts[-1]
        own = subject.startswith("Portcullis")
        name = f"**{subject}**" if own else subject
        lines.append([kind, name, *(number(mib, 1) for mib in taken), number(each, 1)])
    failed = "".join(f"\n* not measured: {words}" for words in figures["failed"])
    return rows(head, lines) + failed


def latency(figures):
    """Formats the latency table of a single connection."""
    floors = [figures["lanes"].get(name, {}).get("slices", []) for name in (load.FLOOR, load.NGINX)]
    lines = []
    for name, taken in figures["lanes"].items():
        if taken["slices"]:
            p50, p99 = (load.median(taken["slices"], figure) for figure in ("p50", "p99"))
            cells = [number(p50 * 1000), number(p99 * 1000)]
            for floor in floors:
                beside = [a["p50"] / b["p50"] for a, b in zip(taken["slices"], floor)]
                cells.append(number(statistics.median(beside) if beside else None, 2))
            lines.append([name, *cells])
    return rows(["subject", "p50 µs", "p99 µs", "p50 vs Pingora", "p50 vs nginx"], lines)


def starts(figures):
    """Formats the table of start times."""
    lines = [
        [name, number(statistics.median(taken), 1), number(max(taken), 1)]
        for name, taken in figures["starts"].items()
    ]
    return rows(["subject, start to first response", "median ms", "longest ms"], lines)


def callbacks(figures):
    """Formats the table of `bench/stories`."""
    head = ["store", "whole ms", "provider ms", "beside the provider ms", "p99 of that", "CPU µs", "Redis µs"]
    lines = []
    for name, taken in figures.items():
        value = lambda figure: load.median(taken["slices"], figure)
        if taken["slices"]:
            times = [number(value(figure), 2) for figure in ("whole", "provider", "beside", "p99")]
            lines.append([name, *times, number(value("cpu")), number(value("redis"))])
    return rows(head, lines)


def scale(what, figures):
    """Formats the table of one dimension of `bench/scale`."""
    if "failed" in figures:
        return f"{what}: not measured: {figures['failed']}\n"
    others = ["floor", "nginx"] if what == "connections" else ["floor"]
    beside = ["vs bare Pingora", "vs bare nginx"] if what == "connections" else ["vs the smallest"]
    lines = []
    for size, taken in figures.items():
        value = lambda figure: load.median(taken["slices"], figure)
        if taken["slices"]:
            ratios = [number(load.ratio(taken["slices"], other), 2) for other in others]
            lines.append([number(int(size)), number(value("cpu"), 1), *ratios, number(value("rate"))])
    failures = [word for size, taken in figures.items() for word in lost_words(f"{int(size):,} {what}", taken)]
    return rows([what, "CPU µs/req", *beside, "req/s"], lines) + "".join(f"\n{word}" for word in failures) + "\n"


def origin_words(of):
    """Describes the origin of figures in one line."""
    options = of["options"]
    pinned = "unpinned" if "unpinned" in options else "pinned"
    return (
        f"{of['date']}, commit {of['commit']}, {of['build']}, {pinned}; "
        f"{options.get('slices', '?')} slices of {options.get('seconds', '?')} s.\n"
    )
