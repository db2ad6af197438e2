"""Reads the gateway's access log."""

import json
import sys
import time


def milliseconds(log, names):
    """Returns the durations of the requests with these IDs, in order, once all of them are in the log."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        taken = {}
        for line in log.read_text().splitlines():
            if line.startswith("{") and '"kind":"access"' in line:
                entry = json.loads(line)
                taken[entry["request_id"]] = entry["duration_seconds"] * 1000
        if all(name in taken for name in names):
            return [taken[name] for name in names]
        time.sleep(0.1)
    sys.exit(f"the access log {log} does not contain all requests")
