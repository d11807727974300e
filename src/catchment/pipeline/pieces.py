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
from catchment.model.errors import TableStopped
from catchment.model.table import Table
from catchment.pipeline.cycle import Cycle, Piece
from catchment.pipeline.fingerprint import Change, change, key_numbers, same_shape
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
            asked_for: Keys = [pa.array(column, pa.string()) for column in refill.keys]
            return Piece(None, asked_for, refill.key, blocks=False)
        if progress is None:
            # What is not followed has to be read whole: nobody is told of what comes between two cycles.
            followed = self._shapes.known[table.oid].followed or self._is_for_all(refill)
            return Piece(seconds=seconds if followed else None)
        keys = self._kept.waiting(table, progress, self._writer.tail.frontier.offset)
        return Piece(progress.reached, keys, key_numbers(table), progress.reached is not None, seconds)

    def _is_for_all(self, refill: Refill) -> bool:
        return self._targets.issubset(refill.targets)

    def append(self, refill: Refill, cycle: Cycle, published: PublishedTable) -> Refill:
        """Append what a cycle has read; returns what remains of the refill. Raises TableStopped: it is read again.

        A table that changed its shape, was emptied or got another file since it was begun is begun again, and so is one
        of which the snapshot's catalog shows what the stream has not told: it may be why the blocks read before are not
        as they were, and nobody would look at it again once it is adopted.
        """
        if refill.keys:
            return self._mend(refill, cycle, published)
        known = self._shapes.known[cycle.table.oid]
        found, first = change(known, published), cycle.piece.first
        if found is Change.REFILL_AFTER_OPEN or (found is Change.REFILL and not first):
            self._shapes.leave_out(published, found)
            return refill.begun_again(cycle.table.oid)
        told = known is not cycle.known and (known.stopped or known.relation != published.relation)
        to_be_told = found is Change.IN_PLACE and not first
        progress = refill.progress_of(known.table)
        if told or to_be_told or cycle.another_file or self._shapes.emptied or (progress is None) != first:
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

    def _mend(self, refill: Refill, cycle: Cycle, published: PublishedTable) -> Refill:
        """Tell the rows that were asked for by their keys, and which are gone; returns what remains.

        A table that is not followed is read again anyway, and that one was just emptied has been told. Where the key
        has become another one, rows cannot be found by what it was: all of them are read again.
        """
        known, keys = self._shapes.known[cycle.table.oid], cycle.piece.keys
        table = known.table
        kept = self._kept.since(cycle, table, self._writer.tail.frontier.offset)
        if kept is None or not known.followed:
            return self._teller.keep(refill.without(table.oid))
        if refill.key != key_numbers(table):
            self._shapes.want(table.oid)
            return self._teller.keep(refill.without(table.oid))
        if not same_shape(table, published.table):
            what = "has a shape that the stream has not told of yet"
            raise TableStopped(what, table=str(table), remedy="it is read again")
        forward = Forward(table, kept.unseen, told=True)
        waiting = Waiting(table, kept.all, among=keys)
        gone = absent(table, keys, cycle.held.chunks(), kept.all)
        chunks = chain(map(forward.held, cycle.held.chunks()), (forward.rest() for _ in range(1)))
        refill = self._teller.mended(refill, table, gone, map(waiting.told, chunks))
        if left := waiting.keys:
            return self._teller.keep(replace(refill, keys=tuple(tuple(column.to_pylist()) for column in left)))
        return self._teller.keep(refill.without(table.oid))
