"""Writes `docs/performance.md` and its plots from the stored results of the parts."""

import re
import string

import lanes
import load
import plots
import results
import tables
import targets
from builds import ROOT

DOCS = ROOT / "docs"
PARTS = ("run", "run-unpinned", "latency", "memory", "stories", "scale", "counts")
ABSENT = "Not measured in this run.\n"


def write():
    """Writes the document from the available results."""
    parts = {name: results.load(name) for name in PARTS}
    figures = {name: part["figures"] if part else None for name, part in parts.items()}
    template = string.Template((ROOT / "bench" / "performance.md").read_text())
    counted = figures["counts"] or {}
    text = template.substitute(
        origin=origin(parts),
        plot_cpu=plot_cpu(figures["run"]),
        subjects=tables.subjects(figures["run"], counted) if figures["run"] else ABSENT,
        unpinned=unpinned(figures["run-unpinned"]),
        targets=targets.table(figures),
        latency=tables.latency(figures["latency"]) if figures["latency"] else ABSENT,
        starts=tables.starts(figures["latency"]) if figures["latency"] else "",
        memory=tables.memory(figures["memory"]) if figures["memory"] else ABSENT,
        memory_note=memory_note(figures["memory"]),
        callbacks=tables.callbacks(figures["stories"]) if figures["stories"] else ABSENT,
        scale=scale(figures["scale"]),
        versions=versions(),
    )
    # Absent parts leave no gap.
    text = re.sub(r"\n{3,}", "\n\n", text)
    (DOCS / "performance.md").write_text(text)
    print(f"written to {DOCS / 'performance.md'}")


def origin(parts):
    """Returns the machine, and date, commit and build of each part."""
    there = {name: part["of"] for name, part in parts.items() if part}
    if not there:
        return ABSENT
    first = next(iter(there.values()))
    machine = first["machine"]
    text = (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; {machine['system']}, "
        f"Linux {machine['kernel']}.\n\n"
    )
    lines = []
    for name, of in there.items():
        options = of["options"]
        slices = slices_words(options)
        lines.append([
            name, of["date"], f"`{of['commit']}`", of["build"] + slices, f"{of['load_before']:.1f}",
        ])
    return text + tables.rows(["part", "date", "commit", "build", "load average before"], lines)


def slices_words(options):
    if "slices" not in options:
        return ""
    length = f"{options['seconds']} s" if "seconds" in options else f"{options['callbacks']} callbacks"
    return f", {options['slices']} slices of {length}"


def plot_cpu(measured):
    values = [
        (name, load.median(measured[name]["slices"], "cpu"), name.startswith("Portcullis"))
        for name in lanes.NAMES
        if measured and name != lanes.DIRECT and measured.get(name, {}).get("slices")
    ]
    if values:
        svg = plots.bars("CPU µs of the gateway per request (logarithmic)", values)
        (DOCS / "performance-cpu.svg").write_text(svg)
    return "performance-cpu.svg"


def unpinned(measured):
    if not measured:
        return ""
    return (
        "Without pinning, every process may use every core, and gateways have one worker per core.\n\n"
        + tables.subjects(measured, {})
    )


def memory_note(figures):
    if not figures or not figures.get("limited"):
        return ""
    return (
        f"The largest count is what the machine allows: a process has two sockets for each connection, "
        f"and may have {2 * figures['counts'][-1] + 400:,} files open."
    )


def scale(figures):
    if not figures:
        return ABSENT
    text = ""
    for what, taken in figures.items():
        text += f"### {what.capitalize()}\n\n"
        points = [
            (int(size), load.ratio(one["slices"])) for size, one in taken.items()
            if size != "failed" and load.ratio(one["slices"])
        ]
        if len(points) > 1:
            bound = targets.SCALE.get(what)
            title = f"CPU per request, relative to {'the bare proxy' if what == 'connections' else 'the smallest'}"
            svg = plots.along(title, what, points, bound, f"at most {bound}")
            (DOCS / f"performance-{what}.svg").write_text(svg)
            text += f"![CPU by {what}](performance-{what}.svg)\n\n"
        text += tables.scale(what, taken) + "\n"
    return text.rstrip() + "\n"


def versions():
    found = ", ".join(f"{name} {version}" for name, version in results.versions().items())
    return f"Versions: {found}."
