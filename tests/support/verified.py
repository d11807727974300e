"""What ``catchment verify --json`` has found, for tests to look at."""

from __future__ import annotations

from typing import Any


def wrong(report: dict[str, Any]) -> set[tuple[str, ...]]:
    """Of one table: kind and key of each differing row, and its differing columns if there are any."""
    return {
        (one["kind"], *one["key"].values(), *([" ".join(one["columns"])] if one["columns"] else []))
        for one in report["differences"]
    }
