"""Bringing source and target to the same place in the log, while both go on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa

from catchment.changes.forward import unseen
from catchment.changes.snapshot import Snapshot
from catchment.log.base import Log
from catchment.model.batch import Batch, RefillStarted, SchemaChanged, TableRows, Truncated
from catchment.model.errors import LogTrimmed, TableLocked, TargetRefused
from catchment.model.frontier import Frontier
from catchment.model.lsn import Lsn
from catchment.model.table import Table
from catchment.pipeline.streamed import Streamed
from catchment.postgres.catalog import PublishedTable
from catchment.postgres.reading import Sight, SourceReader
from catchment.targets.base import ComparedRows, TargetReader

_PATIENCE_SECONDS = 30.0  # an idle source's position is in the log every 10 s
_STANDSTILL_SECONDS = 30.0
_LOOK_SECONDS = 0.05


class Places:
    """Says of a source's snapshot and a target's frontier what lies between them.

    A snapshot is used only if it sees all that was streamed before it, which is the rule of backfills too: then all
    that it does not see stands behind ``offset``, where the log ended before it was taken. ``running`` says whether a
    hub moves log and target on.
    """

    def __init__(
        self, name: str, source: SourceReader, target: TargetReader, log: Log, running: Callable[[], bool]
    ) -> None:
        self._name = name
        self._source = source
        self._target = target
        self._log = log
        self._running = running
        self._identity = log.wait(name, 0, 0).log
        self._stuck: int | None = None

    @contextlib.contextmanager
    def sight(self, published: PublishedTable) -> Iterator[tuple[Sight, int]]:
        """A usable snapshot of the source for the block, and ``offset``. Raises TableLocked when there is none."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            offset = self._end()
            must_see = np.array(Streamed(self._log.state(self._name)).unseen(), dtype=np.int64)
            with self._source.snapshot(published) as sight:
                if np.all(sight.snapshot.sees(must_see)):
                    yield sight, offset
                    return
            if time.monotonic() > deadline:
                raise TableLocked(
                    "waits for transactions that are committed and that others do not see yet",
                    source=self._name,
                    table=str(published.table),
                    remedy="see whether the source waits for a synchronous standby, then verify again",
                )
            time.sleep(_LOOK_SECONDS)

    @contextlib.contextmanager
    def snapshot(self, table: Table) -> Iterator[tuple[Frontier, ComparedRows]]:
        """A snapshot of the target for the block. Raises TargetError, also when it was built from another log."""
        with self._target.snapshot(table) as (frontier, rows):
            if frontier.log != self._identity:
                raise TargetRefused(
                    "was not built from the log that there is now",
                    target=self._target.name,
                    source=self._name,
                    remedy="verify it when it is filled again; `catchment status` shows it",
                )
            yield frontier, rows

    def come_to(self, fence: Lsn) -> None:
        """Wait until the target has passed the fence, or as long as it moves and a hub runs."""
        flushed = False
        moved, since = None, time.monotonic()
        while (frontier := self._target.frontier()) is not None and frontier.lsn < fence:
            now = time.monotonic()
            if frontier.offset != moved:
                moved, since = frontier.offset, now
            if not self._running() or self._stuck == moved or now - since > _STANDSTILL_SECONDS:
                self._stuck = moved
                return
            if not flushed:
                # A position in the midst of a page that nobody commits on is not sent.
                self._source.flush()
                flushed = True
            time.sleep(_LOOK_SECONDS)

    def kept(self, table: Table, after: int, through: int, snapshot: Snapshot) -> list[pa.RecordBatch] | None:
        """The table's changes between two offsets that the snapshot does not see; null when rows are not all of it.

        That is after a TRUNCATE or a change of shape: it takes a snapshot from behind it.
        """
        kept = []
        try:
            for _, batch in self._log.read(self._name, after, through):
                if _upsets(batch, table):
                    return None
                kept += [rows for told in _rows(batch, table) if (rows := unseen(told.data, snapshot)).num_rows]
        except LogTrimmed:
            return None
        return kept

    def to_come(self, table: Table, at: Frontier, fence: Lsn) -> Iterator[pa.RecordBatch | None]:
        """What a target that is at ``at``, before the fence, is still to be told of the table's rows.

        Null stands for what may touch any row: a TRUNCATE, a refill, a change of shape, and changes that the log does
        not have yet, which are not looked at row by row.
        """
        end = self._await_log(fence)
        for _, batch in self._log.read(self._name, at.offset, end.offset):
            if _upsets(batch, table) or self._is_refilled(batch, table):
                yield None
            yield from (told.data for told in _rows(batch, table))
        if end.lsn < fence:
            changed = self._source.uncollected(end.lsn, fence)
            if changed is None or table.oid in changed:
                yield None

    def _await_log(self, fence: Lsn) -> Frontier:
        """Where the log ends once it has passed the fence, or will not do so soon."""
        self._source.flush()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            last = self._end()
            ((end, _),) = self._log.read(self._name, last - 1, last)
            if end.lsn >= fence or not self._running() or time.monotonic() > deadline:
                return end
            time.sleep(_LOOK_SECONDS)

    def _end(self) -> int:
        return self._log.wait(self._name, 0, 0, most_bytes=2**62).last

    def _is_refilled(self, batch: Batch, table: Table) -> bool:
        refills = (event for event in batch.events if isinstance(event, RefillStarted))
        return any(_names(event.tables, table) for event in refills if self._target.name in event.targets)


def _rows(batch: Batch, table: Table) -> list[TableRows]:
    """What the stream brought of the table."""
    return [told for told in batch.rows if told.table.oid == table.oid and told.refill is None]


def _upsets(batch: Batch, table: Table) -> bool:
    """Whether rows before and behind this batch have to do with each other only by way of an event."""
    return any(
        (isinstance(event, Truncated) and _names(event.tables, table))
        or (isinstance(event, SchemaChanged) and event.table.oid == table.oid)
        for event in batch.events
    )


def _names(tables: Iterable[Table], table: Table) -> bool:
    return any(named.oid == table.oid for named in tables)
