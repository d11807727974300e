"""``python -m bench [NAME …]``: run these measurements, or all; print what came out and write it as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

from bench import backfill, capture, idle, lake, latency, memory
from catchment.demo.binaries import find_binaries, version

MEASUREMENTS = {
    "capture": capture.measure,
    "latency": latency.measure,
    "backfill": backfill.measure,
    "memory": memory.measure,
    "idle": idle.measure,
    "lake": lake.measure,
}
RESULTS = Path("bench/results.json")


def main(names: list[str]) -> None:
    """Run the named measurements."""
    machine = {
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "postgresql": version(find_binaries()),
    }
    print(" · ".join(f"{name} {value}" for name, value in machine.items()))
    results: dict[str, object] = {"machine": machine}
    for name in names or MEASUREMENTS:
        print(f"\n{name}: {sys.modules[f'bench.{name}'].__doc__}")
        results[name] = MEASUREMENTS[name]()
        for what, value in results[name].items():  # type: ignore[attr-defined]
            print(f"  {what:<40} {value:>12,.2f}")
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nwritten to {RESULTS}")


if __name__ == "__main__":
    main(sys.argv[1:])
