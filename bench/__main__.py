"""``python -m bench [NAME …]``: run these measurements, or all; print what came out, keep it as JSON and as a plot."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

from bench import backfill, capture, firstload, idle, lake, latency, memory, plot, subscription
from catchment.demo.binaries import find_binaries, version

MEASUREMENTS = {
    "capture": capture.measure,
    "subscription": subscription.measure,
    "latency": latency.measure,
    "backfill": backfill.measure,
    "firstload": firstload.measure,
    "memory": memory.measure,
    "idle": idle.measure,
    "lake": lake.measure,
}
RESULTS = Path("bench/results.json")
PLOT = Path("docs/performance.svg")


def main(names: list[str]) -> None:
    """Run the named measurements; those that are not named keep what they came to before."""
    machine = {
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "postgresql": version(find_binaries()),
    }
    print(" · ".join(f"{name} {value}" for name, value in machine.items()))
    results: dict[str, dict[str, object]] = json.loads(RESULTS.read_text()) if names and RESULTS.exists() else {}
    for name in names or MEASUREMENTS:
        print(f"\n{name}: {sys.modules[f'bench.{name}'].__doc__}")
        values = MEASUREMENTS[name]()
        for what, value in values.items():
            print(f"  {what:<48} {value:>14,.2f}")
        results[name] = {"machine": machine, "values": values}
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    PLOT.write_text(plot.draw(results))
    print(f"\nwritten to {RESULTS} and {PLOT}")


if __name__ == "__main__":
    main(sys.argv[1:])
