"""What happened in one loop since its process began, as plain numbers: for the metrics and for `status`."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Upper bounds in seconds, inclusive; one more bucket holds all that took longer."""
_TELLING_SECONDS = 2.0


class Counters:
    """Not safe to share between threads: whoever owns it has a lock."""

    def __init__(self) -> None:
        self._changes = 0
        self._batches = 0
        self._restarts = 0
        self._errors: dict[str, int] = {}
        self._latencies = [0] * (len(LATENCY_BUCKETS) + 1)
        self._latency_seconds = 0.0

    def moved(self, batches: int, changes: int) -> None:
        """So much was appended to the log, or applied to a target."""
        self._batches += batches
        self._changes += changes

    def applied(self, committed: Iterable[datetime]) -> None:
        """What was committed at these times is visible in the target as of now.

        The two times come from two clocks: where the source's is ahead, less than no time counts as none.
        """
        now = datetime.now(UTC)
        for committed_at in committed:
            seconds = max(0.0, (now - committed_at).total_seconds())
            self._latencies[bisect_left(LATENCY_BUCKETS, seconds)] += 1
            self._latency_seconds += seconds

    def failed(self, error: str) -> None:
        """The loop ended with an error of this class."""
        self._errors[error] = self._errors.get(error, 0) + 1

    def restarted(self) -> None:
        """The loop is run again after an error."""
        self._restarts += 1

    def told(self) -> dict[str, Any]:
        """All of it, as JSON can hold it. ``latency.counts`` is by bucket, not cumulative."""
        return {
            "changes": self._changes,
            "batches": self._batches,
            "restarts": self._restarts,
            "errors": dict(self._errors),
            "latency": {"counts": list(self._latencies), "seconds": round(self._latency_seconds, 6)},
        }


class Rate:
    """Rows a second since the first of them came."""

    def __init__(self) -> None:
        self._before: int | None = None
        self._began = 0.0

    def at(self, rows: int) -> int | None:
        """The rate, now that so many have been read; null until it says something."""
        now = time.monotonic()
        if self._before is None or rows <= self._before:
            self._before, self._began = rows, now
            return None
        elapsed = now - self._began
        return round((rows - self._before) / elapsed) if elapsed >= _TELLING_SECONDS else None
