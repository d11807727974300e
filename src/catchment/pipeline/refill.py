"""Backfills: an ``r`` row states the row's value at its own place in the log.

A table is read in cycles. For each: note where the log stands, read a piece of the table in a snapshot beside the
stream, wait until the stream has passed everything that the snapshot saw, bring the rows forward with what the log has
received since, append them. Nothing is ever dropped from the stream. docs/exactness.md tells why each step is needed.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import structlog

from catchment.changes.snapshot import Snapshot
from catchment.changes.waiting import Keys
from catchment.log.base import Log, LogWriter, State
from catchment.model.batch import Batch
from catchment.model.errors import CatchmentError, LogTrimmed, TableStopped
from catchment.model.lsn import Lsn
from catchment.model.table import Table
from catchment.pipeline.counters import Rate
from catchment.pipeline.cycle import Cycle
from catchment.pipeline.fingerprint import key_numbers
from catchment.pipeline.kept import Kept
from catchment.pipeline.pieces import Pieces
from catchment.pipeline.shapes import Shapes
from catchment.pipeline.state import REFILL, TARGET, Origin, Refill, entries, needed
from catchment.pipeline.streamed import Streamed
from catchment.pipeline.tell import Teller
from catchment.postgres.catalog import PublishedTable
from catchment.postgres.source import Source
from catchment.wire.twin import Decoder

_RETRY_SECONDS = 2.0
_OPERATOR_SECONDS = 20.0
_BUSY_SECONDS, _LATE_SECONDS, _IDLE_SECONDS = 1.0, 5.0, 10.0

logger = structlog.get_logger()


class Backfills:
    """All backfills of one source, one table at a time. ``advance`` is called while the stream is between transactions.

    A table that cannot be read holds nobody up: it is left out, stopped with its sentence, and tried again later.
    ``trouble`` is the sentence of what keeps the current backfill from going on for a while, if anything does.
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
        busy: Callable[[], bool],
        wake: Callable[[], None],
    ) -> None:
        self._source = source
        self._targets = tuple(targets)
        self._log = log
        self._writer = writer
        self._shapes = shapes
        self._streamed = streamed
        self._directory = directory
        self._teller = Teller(source.name, writer, decoder, append, shapes.changes)
        self._pieces = Pieces(targets, writer, shapes, Kept(source.name, log), self._teller)
        self._answer = answer
        self._busy = busy
        self._wake = wake
        self._origin = Origin.of(writer.tail.state)
        self._births = {name: int(value["offset"]) for name, value in entries(writer.tail.state, TARGET)}
        refills = Refill.of(writer.tail.state)
        self._queue = deque(sorted((r for r in refills if r.finished is None), key=lambda r: r.started is None))
        self._answers = {request: r.finished is not None for r in refills for request in r.requests}
        self._current: Refill | None = None
        self._cycle: Cycle | None = None
        self._not_before = 0.0
        self._left_out: dict[int, float] = {}
        self._refusals: list[str] = []
        self._rate = Rate()
        self._waited = 0.0
        self.trouble: str | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is being read and nothing waits to be."""
        return not (self._current or self._queue or self._unfilled())

    def _unfilled(self) -> tuple[int, ...]:
        """What has to be read for all targets, without what was tried a moment ago and has to be mended first."""
        now = time.monotonic()
        return tuple(oid for oid in self._shapes.unfilled if self._left_out.get(oid, now) <= now)

    @property
    def awaited(self) -> Lsn | None:
        """The WAL position that the stream has to pass before the next step, if that is what is waited for."""
        return self._cycle.fence if self._cycle and self._cycle.finished.is_set() and self._cycle.published else None

    @property
    def keep(self) -> int | None:
        """The offset behind which the log must not be trimmed: it is being told, or needed to bring rows forward."""
        cycle = self._cycle
        offsets = (cycle.keep if cycle else None, needed(self._writer.tail.state))
        return min((offset for offset in offsets if offset is not None), default=None)

    def want(self, targets: Sequence[str], tables: Sequence[int] | None = None, request: int | None = None) -> None:
        """Backfill these tables (all, when null) for these targets, after what is under way. Durable on return."""
        refill = Refill(
            id=uuid.uuid4().hex,
            tables=self._shared() if tables is None else tuple(tables),
            targets=tuple(targets),
            full=tables is None,
            requests=() if request is None else (request,),
        )
        self._queue.append(self._teller.keep(refill))
        self._answers |= dict.fromkeys(refill.requests, False)

    def _shared(self) -> tuple[int, ...]:
        return tuple(oid for oid, known in self._shapes.known.items() if not known.retired)

    def join(self, targets: Sequence[str], request: int) -> bool:
        """Have a backfill of all tables for these targets, which has yet to begin, answer this request too.

        Durable on return; false when there is none.
        """
        for at, refill in enumerate(self._queue):
            if refill.full and refill.started is None and set(targets).issubset(refill.targets):
                self._queue[at] = self._teller.keep(replace(refill, requests=(*refill.requests, request)))
                self._answers[request] = False
                return True
        return False

    def mend(self, table: Table, keys: Keys, request: int | None = None) -> State:
        """Read rows again by their keys, for all targets; returns what has to be saved for it to outlast a restart."""
        refill = Refill(
            id=uuid.uuid4().hex,
            tables=(table.oid,),
            targets=self._targets,
            full=False,
            requests=() if request is None else (request,),
            keys=tuple(tuple(column.to_pylist()) for column in keys),
            key=key_numbers(table),
        )
        self._queue.append(refill)
        self._answers |= dict.fromkeys(refill.requests, False)
        return {f"{REFILL}{refill.id}": refill.encode()}

    def want_mended(self, table: int, keys: Keys, request: int) -> None:
        """The same for somebody who asked. Durable on return."""
        self._teller.note(self.mend(self._shapes.known[table].table, keys, request))

    def begin_targets(self) -> None:
        """Have every configured target that this log has never filled filled, and forget those that are no more."""
        if gone := [name for name in self._births if name not in self._targets]:
            self._teller.note({f"{TARGET}{name}": None for name in gone})
        filling = {name for refill in self._queue if refill.full for name in refill.targets}
        if missing := [name for name in self._targets if name not in self._births and name not in filling]:
            self.want(missing)

    def remember(self) -> None:
        """Write down what has become known of the tables: it may be long before a change comes by that carries it."""
        if self._shapes.unsaved:
            self._teller.note({})

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
        """Do all that can be done now. What all targets lack comes before what one of them asks for."""
        while (step := self._step()) is not None:
            step()

    def _step(self) -> Callable[[], None] | None:
        """What can be done next, if anything can."""
        cycle, current = self._cycle, self._current
        if cycle is not None:
            return partial(self._end, cycle) if self._has_ended(cycle) else None
        if current is not None:
            if not current.tables:
                return partial(self._finish, current)
            return partial(self._begin, current) if time.monotonic() >= self._not_before else None
        if not any(refill.started for refill in self._queue) and (unfilled := self._unfilled()):
            return partial(self._take_up_unfilled, unfilled)
        return partial(self._take_up, self._queue.popleft()) if self._queue else None

    def _has_ended(self, cycle: Cycle) -> bool:
        """Whether it was read and the stream has passed its fence, or came to nothing."""
        if not cycle.finished.is_set():
            return False
        came_to_nothing = self._current is None or cycle.error is not None or cycle.published is None
        return came_to_nothing or self._writer.tail.frontier.lsn >= cycle.fence

    def _take_up_unfilled(self, unfilled: Sequence[int]) -> None:
        self.want(self._targets, unfilled)
        self._take_up(self._queue.pop())

    def _take_up(self, refill: Refill) -> None:
        if refill.full and refill.started is None:
            # A target that begins with it sees nothing of what was read for all targets while it waited.
            refill = replace(refill, tables=self._shared())
        self._current, self._refusals, self._rate = refill, [], Rate()

    def _begin(self, refill: Refill) -> None:
        """Start the next cycle of the next table, from where the log stands now."""
        known = self._shapes.known[refill.tables[0]]
        tail = self._writer.tail.frontier.offset
        must_see = np.array(self._streamed.unseen(), dtype=np.int64)
        floor = Snapshot.parse(known.floor).xmax if known.floor else 0
        never_streamed = Snapshot.parse(self._origin.snapshot) if self._origin and self._origin.snapshot else None
        self._shapes.read(known.table.oid)

        def usable(snapshot: Snapshot) -> bool:
            # A transaction in progress here that the slot's own snapshot sees has its commit in the WAL already, before
            # the slot's beginning: it waits for a standby, and neither the stream nor this snapshot would bring it.
            lost = never_streamed is not None and never_streamed.sees_one_open_in(snapshot)
            return not lost and snapshot.xmin >= floor and bool(np.all(snapshot.sees(must_see)))

        # While the stream is late, each cycle waits for it: reading a little longer brings the end nearer.
        busy = min(max(_BUSY_SECONDS, self._waited), _LATE_SECONDS)
        try:
            piece = self._pieces.next(refill, known.table, busy if self._busy() else _IDLE_SECONDS)
        except LogTrimmed:  # by hand: which rows still wait to be read by their keys cannot be told any more
            self._current = refill.begun_again(known.table.oid)
            return
        self._cycle = Cycle(self._source, known, piece, tail, usable, self._directory, self._wake)

    def _end(self, cycle: Cycle) -> None:
        """Append what was read, or give it up."""
        refill = self._current
        if refill is None:
            self._discard()
        elif cycle.error is not None:
            self._current = self._put_off(refill, cycle.table.oid, cycle.error)
            self._discard()
        elif cycle.published is None:
            self._shapes.retire(cycle.table.oid)
            self._current = self._leave_out(refill, cycle.table.oid)
            self._discard()
        else:
            self.trouble = None
            self._waited = time.monotonic() - cycle.finished_at
            self._current = self._append(refill, cycle, cycle.published)
            self._discard()

    def _put_off(self, refill: Refill, oid: int, error: CatchmentError) -> Refill:
        """The other tables need not wait for this one."""
        if error.retry:
            self.trouble = str(error)
            self._not_before = time.monotonic() + _RETRY_SECONDS
            return replace(refill, tables=(*refill.tables[1:], oid))
        logger.warning("table cannot be read", source=self._source.name, error=str(error))
        self._shapes.unreadable(oid, str(error))
        self._left_out[oid] = time.monotonic() + _OPERATOR_SECONDS
        self._refusals.append(str(error))
        return self._leave_out(refill, oid)

    def _leave_out(self, refill: Refill, oid: int) -> Refill:
        return self._teller.left_out(refill, self._shapes.known[oid].table)

    def _discard(self) -> None:
        if self._cycle is not None:
            self._cycle.discard()
            self._cycle = None
            self._shapes.read(None)

    def _append(self, refill: Refill, cycle: Cycle, published: PublishedTable) -> Refill:
        try:
            refill = self._pieces.append(refill, cycle, published)
        except LogTrimmed:  # by hand: what was read cannot be brought forward any more
            refill = refill.begun_again(cycle.table.oid)
        except TableStopped as error:
            self.trouble = str(error)
            self._not_before = time.monotonic() + _RETRY_SECONDS
        self._note_births(refill)
        return refill

    def _note_births(self, refill: Refill) -> None:
        """Targets can begin where a refill of all tables does."""
        if refill.full and refill.started is not None:
            self._births |= dict.fromkeys(refill.targets, refill.started)

    def _finish(self, refill: Refill) -> None:
        """Let the targets change over, and answer who asked."""
        refusals = self._refusals
        if refill.full and refill.started is None:
            refill = self._teller.start(refill, ())  # there are no tables: the targets can begin all the same
            self._note_births(refill)
        self._teller.finish(refill, self._log.wait(self._source.name, self._writer.tail.frontier.offset, 0).first)
        for request in refill.requests:
            self._answers[request] = True
            self._answer(request, f"refused: {refusals[0]}" if refusals else f"{refill.rows:,} rows read")
        self._current = None

    def progress(self) -> list[dict[str, object]]:
        """What ``status`` shows of the one under way."""
        if self._current is None:
            return []
        told, reading = self._current.rows, self._cycle.rows if self._cycle else 0
        read = {part.table: part.rows for part in self._current.progress}
        to_come = sum((self._shapes.estimates.get(oid) or 0) - read.get(oid, 0) for oid in self._current.tables)
        return [
            {
                "tables": [str(self._shapes.known[oid].table) for oid in self._current.tables],
                "rows": told + reading,
                "of": told + max(to_come, reading) if to_come > 0 else None,
                "rows_per_second": self._rate.at(told + reading),
            }
        ]

    def close(self) -> None:
        """Stop reading."""
        self._discard()
