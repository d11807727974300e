"""Which transactions were streamed without it being known that a snapshot sees them.

A transaction can be streamed before others see its effects: its commit is in the WAL, but it waits for a synchronous
standby or is just ending. A backfill's snapshot that misses such a transaction would miss it for good, because its
changes have gone by; so a snapshot is used only if it sees all of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from catchment.changes.snapshot import Snapshot
from catchment.log.base import State
from catchment.pipeline.state import STREAMED, encode, entries


class Streamed:
    """Grows with every batch, shrinks with every look at the source; durable with the batches."""

    def __init__(self, state: Mapping[str, bytes]) -> None:
        self._entries = {int(number): value["xids"] for number, value in entries(state, STREAMED)}
        self._next = max(self._entries, default=0) + 1
        self._removed: dict[str, bytes | None] = {}

    def add(self, xids: Sequence[int]) -> State:
        """Remember these; returns what has to be saved with their batch."""
        saved, self._removed = self._removed, {}
        if xids:
            self._entries[self._next] = list(xids)
            saved[f"{STREAMED}{self._next}"] = encode({"xids": list(xids)})
            self._next += 1
        return saved

    def forget_seen(self, snapshot: Snapshot) -> None:
        """Let go of what this snapshot sees; saved with the next batch."""
        if not self._entries:
            return
        numbers = list(self._entries)
        begins = np.cumsum([0, *(len(self._entries[number]) for number in numbers[:-1])])
        all_seen = np.logical_and.reduceat(snapshot.sees(np.array(self.unseen(), dtype=np.int64)), begins)
        for number in np.array(numbers)[all_seen].tolist():
            del self._entries[number]
            self._removed[f"{STREAMED}{number}"] = None

    def unseen(self) -> list[int]:
        """Every transaction streamed so far that a usable snapshot has to see."""
        return [xid for xids in self._entries.values() for xid in xids]
