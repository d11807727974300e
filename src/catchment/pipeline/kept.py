"""What the log has received of a table while some of it was read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from catchment.changes.forward import unseen
from catchment.changes.waiting import Keys, Waiting, together
from catchment.log.base import Log
from catchment.model.batch import Batch, Truncated
from catchment.model.table import Table
from catchment.pipeline.cycle import Cycle
from catchment.pipeline.state import KEPT, Progress


@dataclass(frozen=True, slots=True)
class Window:
    """Changes of a table, in order, since a cycle began: all, and those that its snapshot does not see."""

    all: list[pa.RecordBatch]
    unseen: list[pa.RecordBatch]


@dataclass(frozen=True, slots=True)
class _Left:
    """Keys that waited when the log ended at ``offset``."""

    keys: Keys
    table: int
    offset: int


class Kept:
    """Reads changes back out of the log, and knows which rows wait to be read by their keys."""

    def __init__(self, source: str, log: Log) -> None:
        self._source = source
        self._log = log
        self._left: _Left | None = None

    def since(self, cycle: Cycle, table: Table, through: int) -> Window | None:
        """The changes of a table that a cycle read; null after a TRUNCATE that its snapshot does not see."""
        window = Window([], [])
        for batch in self._batches(cycle.keep, through):
            for event in batch.events:
                if isinstance(event, Truncated) and any(emptied.oid == table.oid for emptied in event.tables):
                    if not cycle.snapshot.sees([event.place.xid])[0]:
                        return None
                    window.all.clear()
                    window.unseen.clear()
            for rows in _of(batch, table):
                window.all.append(rows)
                if (hidden := unseen(rows, cycle.snapshot)).num_rows:
                    window.unseen.append(hidden)
        return window

    def leave(self, keys: Keys, table: int, offset: int) -> None:
        """Rows with these keys wait, as of this offset."""
        self._left = _Left(keys, table, offset)

    def waiting(self, table: Table, progress: Progress, through: int) -> Keys:
        """The keys of rows that wait; more of them than need be after a restart, when they have been forgotten."""
        left = self._left if self._left and self._left.table == table.oid else None
        since, keys = (left.offset, left.keys) if left else (progress.since, [])
        among = keys if left and progress.reached is None else None
        changes = [rows for batch in self._batches(since, through) for rows in _of(batch, table)]
        return together(keys, Waiting(table, changes, among).keys)

    def _batches(self, after: int, through: int) -> Iterator[Batch]:
        return (batch for _, batch in self._log.read(self._source, after, through))


def _of(batch: Batch, table: Table) -> Iterator[pa.RecordBatch]:
    """What the stream brought of the table with the same columns, whatever else the catalog has come to say of them.

    Who adds or drops a column locks everybody out: a snapshot that shows the one shape sees all changes in the other.
    """
    numbers = _numbers(table)
    for told in batch.rows:
        if told.refill in (None, KEPT) and told.table.oid == table.oid and _numbers(told.table) == numbers:
            yield told.data


def _numbers(table: Table) -> list[int]:
    return [column.number for column in table.columns]
