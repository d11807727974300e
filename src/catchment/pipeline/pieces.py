"""The two ends of a cycle: which piece of a table it reads, and how its rows get into the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import pyarrow as pa

from catchment.changes.absent import absent
from catchment.changes.forward import Forward
from catchment.changes.waiting import Keys, Waiting
from catchment.log.base import LogWriter
from catchment.model.table import Table
from catchment.pipeline.cycle import Cycle, Piece
from catchment.pipeline.kept import Kept, Window
from catchment.pipeline.shapes import Shapes
from catchment.pipeline.state import Progress, Refill
from catchment.pipeline.tell import Teller
from catchment.postgres.catalog import PublishedTable


class Pieces:
    """Tables are read piece by piece; each is brought forward to the place where the log stands, and appended there."""

    def __init__(self, targets: Sequence[str], writer: LogWriter, shapes: Shapes, kept: Kept, teller: Teller) -> None:
        self._targets = frozenset(targets)
        self._writer = writer
        self._shapes = shapes
        self._kept = kept
        self._teller = teller

    def next(self, refill: Refill, table: Table, seconds: float) -> Piece:
        """What the next cycle is to read."""
        progress = refill.progress_of(table)
        if refill.keys:
            return Piece(None, [pa.array(column, pa.string()) for column in refill.keys], blocks=False)
        if progress is None:
            # What is not followed has to be read whole: nobody is told of what comes between two cycles.
            followed = self._shapes.known[table.oid].followed or self._is_for_all(refill)
            return Piece(seconds=seconds if followed else None)
        keys = self._kept.waiting(table, progress, self._writer.tail.frontier.offset)
        return Piece(progress.reached, keys, progress.reached is not None, seconds)

    def _is_for_all(self, refill: Refill) -> bool:
        return self._targets.issubset(refill.targets)

    def append(self, refill: Refill, cycle: Cycle, published: PublishedTable) -> Refill:
        """Append what a cycle has read; returns what remains of the refill. Raises TableStopped: it is read again.

        A table that changed its shape, was emptied or got another file since it was begun is begun again.
        """
        if refill.keys:
            return self._mend(refill, cycle)
        known = self._shapes.known[cycle.table.oid]
        changed = known is not cycle.known and (known.stopped or known.relation != published.relation)
        progress = refill.progress_of(known.table)
        if changed or cycle.another_file or self._shapes.emptied or (progress is None) != cycle.piece.first:
            return refill.begun_again(cycle.table.oid)
        kept = self._kept.since(cycle, published.table, self._writer.tail.frontier.offset)
        if kept is None:
            return refill.begun_again(cycle.table.oid)
        table = self._shapes.adopt(published, for_all=self._is_for_all(refill))
        if progress is None:
            refill = self._teller.start(refill, (table,))
        refill, keys = self._tell(refill, cycle, table, kept)
        if cycle.reached is None and not keys:
            return self._teller.keep(refill.without(table.oid))
        rows = (progress.rows if progress else 0) + cycle.rows
        remaining = self._teller.keep(
            refill.with_progress(Progress(table.oid, table.version, cycle.reached, cycle.keep, rows))
        )
        self._kept.leave(keys, table.oid, self._writer.tail.frontier.offset)
        return remaining

    def _tell(self, refill: Refill, cycle: Cycle, table: Table, kept: Window) -> tuple[Refill, Keys]:
        """Append the rows that were read, brought forward; returns also the keys of rows that wait to be read."""
        if not kept.all:  # there is nothing to bring forward, and nothing of it can wait: they go as they are
            return self._teller.packed(refill, table, cycle.held.packed()), []
        first = cycle.piece.first
        forward = Forward(table, kept.unseen, told=not first)
        chunks = chain(map(forward.held, cycle.held.chunks()), (forward.rest() for _ in range(1)))
        if not table.key:
            return self._teller.rows(refill, table, chunks), []
        # Before the first cycle nothing had been read: what its snapshot sees is read in this cycle or a later one.
        changes = kept.unseen if first else kept.all
        waiting = Waiting(table, changes, among=None if cycle.piece.blocks else cycle.piece.keys)
        return self._teller.rows(refill, table, map(waiting.told, chunks)), waiting.keys

    def _mend(self, refill: Refill, cycle: Cycle) -> Refill:
        """Tell the rows that were asked for by their keys, and which are gone; returns what remains.

        A table that is not followed, or was just emptied or changed, is read again anyway, or was told.
        """
        known, keys = self._shapes.known[cycle.table.oid], cycle.piece.keys
        table = known.table
        kept = self._kept.since(cycle, table, self._writer.tail.frontier.offset)
        if kept is None or known is not cycle.known or not known.followed or len(keys) != len(table.key):
            return self._teller.keep(refill.without(table.oid))
        forward = Forward(table, kept.unseen, told=True)
        waiting = Waiting(table, kept.all, among=keys)
        gone = absent(table, keys, cycle.held.chunks(), kept.all)
        chunks = chain(map(forward.held, cycle.held.chunks()), (forward.rest() for _ in range(1)))
        refill = self._teller.mended(refill, table, gone, map(waiting.told, chunks))
        if left := waiting.keys:
            return self._teller.keep(replace(refill, keys=tuple(tuple(column.to_pylist()) for column in left)))
        return self._teller.keep(refill.without(table.oid))
