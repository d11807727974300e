"""Backfills: an ``r`` row states the row's value at its own place in the log.

For each table: note where the log stands, read the table in a snapshot beside the stream, wait until the stream has
passed everything that the snapshot saw, bring the rows forward with what the log has received since, append them.
Nothing is ever dropped from the stream. docs/exactness.md tells why each step is needed.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from catchment.changes.forward import Forward, unseen
from catchment.changes.snapshot import Snapshot
from catchment.log.base import Log, LogWriter, State
from catchment.model.batch import Batch, Truncated
from catchment.model.errors import TableStopped
from catchment.model.lsn import Lsn
from catchment.model.table import Table
from catchment.pipeline.cycle import Cycle
from catchment.pipeline.shapes import Shapes
from catchment.pipeline.state import KEPT, TARGET, Origin, Refill, entries
from catchment.pipeline.streamed import Streamed
from catchment.pipeline.tell import Teller
from catchment.postgres.catalog import PublishedTable
from catchment.postgres.source import Source
from catchment.wire import Decoder

_RETRY_SECONDS = 2.0
_OPERATOR_SECONDS = 20.0


class Backfills:
    """All backfills of one source, one table at a time. ``advance`` is called while the stream is between transactions.

    ``trouble`` is the sentence of what keeps the current one from going on, if anything does; ``stuck``: only a person
    can mend it.
    """

    def __init__(
        self,
        source: Source,
        targets: Sequence[str],
        log: Log,
        writer: LogWriter,
        decoder: Decoder,
        shapes: Shapes,
        streamed: Streamed,
        directory: Path,
        append: Callable[[Batch, State], object],
        answer: Callable[[int, str], None],
    ) -> None:
        self._source = source
        self._targets = tuple(targets)
        self._log = log
        self._writer = writer
        self._shapes = shapes
        self._streamed = streamed
        self._directory = directory
        self._teller = Teller(source.name, writer, decoder, append)
        self._answer = answer
        self._origin = Origin.of(writer.tail.state)
        self._births = {name: int(value["offset"]) for name, value in entries(writer.tail.state, TARGET)}
        refills = Refill.of(writer.tail.state)
        self._queue = deque(sorted((r for r in refills if r.finished is None), key=lambda r: r.started is None))
        self._answers = {request: r.finished is not None for r in refills for request in r.requests}
        self._current: Refill | None = None
        self._cycle: Cycle | None = None
        self._not_before = 0.0
        self.trouble: str | None = None
        self.stuck = False

    @property
    def idle(self) -> bool:
        """Whether nothing is being read and nothing waits to be."""
        return not (self._current or self._queue or self._shapes.unfilled)

    @property
    def awaited(self) -> Lsn | None:
        """The WAL position that the stream has to pass before the next step, if that is what is waited for."""
        return self._cycle.fence if self._cycle and self._cycle.finished.is_set() and self._cycle.published else None

    @property
    def keep(self) -> int | None:
        """The offset behind which the log must not be trimmed: it is being told, or needed to bring rows forward."""
        cycle, current = self._cycle, self._current
        offsets = [cycle.keep] if cycle else []
        offsets += [current.started - 1] if current and current.started else []
        return min(offsets, default=None)

    def want(self, targets: Sequence[str], tables: Sequence[int] | None = None, request: int | None = None) -> None:
        """Backfill these tables (all, when null) for these targets, after what is under way. Durable on return."""
        shared = tuple(oid for oid, known in self._shapes.known.items() if not known.retired)
        refill = Refill(
            id=uuid.uuid4().hex,
            tables=shared if tables is None else tuple(tables),
            targets=tuple(targets),
            full=tables is None,
            requests=() if request is None else (request,),
        )
        self._teller.want(refill, self._shapes.changes())
        self._queue.append(refill)
        self._answers |= dict.fromkeys(refill.requests, False)

    def begin_targets(self) -> None:
        """Have every configured target that this log has never filled filled, and forget those that are no more."""
        if gone := [name for name in self._births if name not in self._targets]:
            self._teller.note({f"{TARGET}{name}": None for name in gone})
        filling = {name for refill in self._queue if refill.full for name in refill.targets}
        if missing := [name for name in self._targets if name not in self._births and name not in filling]:
            self.want(missing)

    def begins_behind(self, target: str, offset: int) -> bool:
        """Whether a refill of all tables for this target begins, or is about to begin, behind this offset."""
        waiting = [refill for refill in (*self._queue, self._current) if refill and refill.started is None]
        return self._births.get(target, 0) > offset or any(
            refill.full and target in refill.targets for refill in waiting
        )

    def has_answered(self, request: int) -> bool | None:
        """Whether what was asked for with this request is done; null when it was never taken up."""
        return self._answers.get(request)

    def advance(self) -> None:
        """Do the next step if it can be done now. What all targets lack comes before what one of them asks for."""
        if self._cycle is not None:
            if self._cycle.finished.is_set():
                self._end(self._cycle)
        elif self._current is not None:
            if not self._current.tables:
                self._finish(self._current)
            elif time.monotonic() >= self._not_before:
                self._begin(self._current)
        elif self._shapes.unfilled and not any(refill.started for refill in self._queue):
            self.want(self._targets, tuple(self._shapes.unfilled))
            self._current = self._queue.pop()
        elif self._queue:
            self._current = self._queue.popleft()

    def _begin(self, refill: Refill) -> None:
        """Start reading the next table, from where the log stands now."""
        known = self._shapes.known[refill.tables[0]]
        must_see = np.array(self._streamed.unseen(), dtype=np.int64)
        floor = Snapshot.parse(known.floor).xmax if known.floor else 0
        never_streamed = Snapshot.parse(self._origin.snapshot) if self._origin and self._origin.snapshot else None
        self._shapes.read(known.table.oid)

        def usable(snapshot: Snapshot) -> bool:
            # A transaction in progress here that the slot's own snapshot sees has its commit in the WAL already, before
            # the slot's beginning: it waits for a standby, and neither the stream nor this snapshot would bring it.
            open_now = [xid & 0xFFFFFFFF for xid in snapshot.in_progress]
            lost = never_streamed is not None and bool(np.any(never_streamed.sees(open_now)))
            return not lost and snapshot.xmin >= floor and bool(np.all(snapshot.sees(must_see)))

        self._cycle = Cycle(self._source, known, self._writer.tail.frontier.offset, usable, self._directory)

    def _end(self, cycle: Cycle) -> None:
        """Append what was read once the stream has passed its fence, or give it up."""
        refill = self._current
        if refill is None:
            self._discard()
        elif cycle.error is not None:
            self.trouble, self.stuck = str(cycle.error), not cycle.error.retry
            self._not_before = time.monotonic() + (_RETRY_SECONDS if cycle.error.retry else _OPERATOR_SECONDS)
            # The others need not wait for this one.
            self._current = replace(refill, tables=(*refill.tables[1:], refill.tables[0]))
            self._discard()
        elif cycle.published is None:
            self._shapes.retire(cycle.table.oid)
            self._current = refill.without(cycle.table.oid)
            self._discard()
        elif self._writer.tail.frontier.lsn >= cycle.fence:
            self.trouble, self.stuck = None, False
            self._append_rows(refill, cycle, cycle.published)
            self._discard()

    def _discard(self) -> None:
        if self._cycle is not None:
            self._cycle.discard()
            self._cycle = None
            self._shapes.read(None)

    def _append_rows(self, refill: Refill, cycle: Cycle, published: PublishedTable) -> None:
        """Unless the table changed its shape or was emptied since it was read: then it is read again."""
        known = self._shapes.known[cycle.table.oid]
        if known is not cycle.known and (known.stopped or known.relation != published.relation):
            return
        kept = self._kept(cycle)
        if kept is None:
            return
        try:
            forward = Forward(published.table, kept)
            table = self._shapes.adopt(published, for_all=set(refill.targets) >= set(self._targets))
            chunks = chain(map(forward.held, cycle.held.chunks()), (forward.rest() for _ in range(1)))
            self._current = self._teller.rows(self._start(refill, (table,)), table, chunks)
        except TableStopped as error:
            self.trouble = str(error)
            self._not_before = time.monotonic() + _RETRY_SECONDS

    def _kept(self, cycle: Cycle) -> list[pa.RecordBatch] | None:
        """The table's changes since the reading began that the snapshot does not see; null after a TRUNCATE."""
        if self._shapes.emptied:
            return None
        kept: list[pa.RecordBatch] = []
        for _, batch in self._log.read(self._source.name, cycle.keep, self._writer.tail.frontier.offset):
            for event in batch.events:
                if isinstance(event, Truncated) and any(table.oid == cycle.table.oid for table in event.tables):
                    if not cycle.snapshot.sees([event.place.xid])[0]:
                        return None
                    kept.clear()
            kept += [
                rows
                for told in batch.rows
                if told.table.oid == cycle.table.oid
                and told.refill in (None, KEPT)
                and (rows := unseen(told.data, cycle.snapshot)).num_rows
            ]
        return kept

    def _start(self, refill: Refill, tables: tuple[Table, ...]) -> Refill:
        started = self._teller.start(refill, tables, self._shapes.changes())
        if started.full and started.started is not None:
            self._births |= dict.fromkeys(started.targets, started.started)
        return started

    def _finish(self, refill: Refill) -> None:
        """Let the targets change over, and answer who asked."""
        rows = self._teller.told
        if refill.full and refill.started is None:
            refill = self._start(refill, ())  # there are no tables: the targets can begin all the same
        self._teller.finish(refill, self._log.wait(self._source.name, self._writer.tail.frontier.offset, 0).first)
        for request in refill.requests:
            self._answers[request] = True
            self._answer(request, f"{rows} rows read")
        self._current = None

    def progress(self) -> list[dict[str, object]]:
        """What ``status`` shows of the one under way."""
        if self._current is None:
            return []
        reading = self._cycle
        return [
            {
                "tables": [str(self._shapes.known[oid].table) for oid in self._current.tables],
                "rows": self._teller.told + (reading.rows if reading else 0),
                "of": reading.published.estimated_rows if reading and reading.published else None,
                "rows_per_second": None,
            }
        ]

    def close(self) -> None:
        """Stop reading."""
        self._discard()
