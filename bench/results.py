"""Stores results, and their origin, between the measurement and the writing of `docs/performance.md`."""

import datetime
import json
import os
import pathlib
import platform
import re
import subprocess

import builds

# Before a benchmark pins itself.
CORES = len(os.sched_getaffinity(0))


def folder():
    path = builds.target() / "bench"
    path.mkdir(parents=True, exist_ok=True)
    return path


def file(part):
    return folder() / f"{part}.json"


def save(part, figures, options, of=None):
    """Stores the figures of one part, complete or partial."""
    text = json.dumps({"of": of or origin(options), "figures": figures}, indent=1)
    # Replaces the file atomically.
    temporary = file(part).with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(file(part))


def load(part):
    """Returns the stored results of a part, or None."""
    if not file(part).exists():
        return None
    return json.loads(file(part).read_text())


def origin(options):
    """Returns date, machine, commit and options."""
    given = {name: str(value) for name, value in vars(options).items() if value not in (None, False)}
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "commit": output_of(["git", "-C", str(builds.ROOT), "rev-parse", "--short", "HEAD"]),
        "options": given,
        "build": builds.words(options),
        "load_before": os.getloadavg()[0],
    }


def machine():
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    system = re.search(r'PRETTY_NAME="(.*)"', pathlib.Path("/etc/os-release").read_text())
    return {
        "cpu": cpu[1].strip() if cpu else platform.machine(),
        "cores": CORES,
        "memory_gib": round(int(memory[1]) / 1024 / 1024) if memory else None,
        "system": system[1] if system else platform.system(),
        "kernel": platform.release(),
    }


def versions():
    """Returns the installed version of each program."""
    commands = {
        "rustc": ["rustc", "--version"], "nginx": ["nginx", "-v"], "Redis": ["redis-server", "--version"],
        "wrk": ["wrk", "-v"], "h2load": ["h2load", "--version"], "Node": ["node", "--version"],
    }
    found = {name: output_of(command) for name, command in commands.items()}
    return {name: short(words) for name, words in found.items() if words}


def short(words):
    version = re.search(r"\d+\.\d+(\.\d+)*", words)
    return version[0] if version else words


def output_of(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except OSError:
        return None
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else None
