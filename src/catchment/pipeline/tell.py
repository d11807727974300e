"""Telling the log what does not come from the stream: the rows of a backfill, and where they begin and end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any
from uuid import uuid4

import pyarrow as pa

from catchment.changes.backfilled import as_rows
from catchment.log.base import LogWriter, State
from catchment.model.batch import Batch, Event, PackedRows, Place, RefillFinished, RefillStarted, TableRows
from catchment.model.table import Table
from catchment.pipeline.state import MENDED, REFILL, SEQUENCE, TARGET, Refill, encode
from catchment.wire.twin import Decoder


class Teller:
    """Appends between two transactions, at the place where the log stands, with what has to be known of it later.

    ``changes`` hands out what has become known of the tables and is not saved yet.
    """

    def __init__(
        self,
        source: str,
        writer: LogWriter,
        decoder: Decoder,
        append: Callable[[Batch, State], object],
        changes: Callable[[], State],
    ) -> None:
        self._source = source
        self._writer = writer
        self._decoder = decoder
        self._append = append
        self._changes = changes

    def note(self, state: State) -> None:
        """Only what has to be known after a restart."""
        self._say(state=state)

    def start(self, refill: Refill, tables: tuple[Table, ...]) -> Refill:
        """The rows of these tables begin; with the first of all tables, targets can begin too."""
        offset = self._writer.tail.frontier.offset + 1
        started = refill if refill.started else replace(refill, started=offset)
        known = {f"{REFILL}{refill.id}": started.encode()}
        if refill.full and refill.started is None:
            known |= {f"{TARGET}{name}": encode({"offset": offset}) for name in refill.targets}
        self._say((RefillStarted(refill.id, tables, refill.targets),), state=known)
        return started

    def rows(self, refill: Refill, table: Table, chunks: Iterable[Sequence[pa.Array[Any]]]) -> Refill:
        """Rows of one table. No change of the stream comes between: in a bag of rows it could not be told apart."""
        first = self._decoder.sequence
        for columns in chunks:
            if columns and len(columns[0]):
                rows = as_rows(table, columns, self._next())
                self._decoder.sequence += rows.num_rows
                self._say(rows=(TableRows(table, rows, refill.id),))
        return replace(refill, rows=refill.rows + self._decoder.sequence - first)

    def packed(self, refill: Refill, table: Table, chunks: Iterable[tuple[pa.Buffer, int]]) -> Refill:
        """The same of rows that are told as they were held, each chunk with the number of its rows."""
        told = 0
        for message, count in chunks:
            rows = PackedRows(table, message, count, self._next(), refill.id)
            self._decoder.sequence += count
            told += count
            self._say(packed=rows)
        return replace(refill, rows=refill.rows + told)

    def _next(self) -> Place:
        """Where the next row stands that did not come from the stream."""
        frontier = self._writer.tail.frontier
        return Place(self._decoder.sequence + 1, frontier.lsn, 0, frontier.committed_at)

    def mended(
        self, refill: Refill, table: Table, gone: Sequence[pa.Array[Any]], rows: Iterable[Sequence[pa.Array[Any]]]
    ) -> Refill:
        """Rows that are not there and rows as they are, all in one transaction: a target shows both or neither."""
        first = self._decoder.sequence
        part = 0
        for columns in chain((gone,), rows):
            if len(columns[0]):
                told = as_rows(table, columns, self._next(), "d" if columns is gone else "r")
                self._decoder.sequence += told.num_rows
                self._say(rows=(TableRows(table, told, MENDED),), part=part, ends=False)
                part += 1
        if part:
            self._say(part=part)
        return replace(refill, rows=refill.rows + self._decoder.sequence - first)

    def left_out(self, refill: Refill, table: Table) -> Refill:
        """This table cannot be read to its end; returns what remains.

        What was told of it must not take the place of what readers see: it belongs to a refill that never finishes,
        until the next one of this table begins.
        """
        remaining = refill.without(table.oid)
        void = (RefillStarted(uuid4().hex, (table,), refill.targets),) if refill.started else ()
        self._say(void, state={f"{REFILL}{refill.id}": remaining.encode()})
        return remaining

    def keep(self, refill: Refill) -> Refill:
        """What remains of it."""
        self._say(state={f"{REFILL}{refill.id}": refill.encode()})
        return refill

    def finish(self, refill: Refill, first: int) -> None:
        """Let the targets change over. What ended before ``first``, the first offset kept, is forgotten."""
        finished = replace(refill, finished=self._writer.tail.frontier.offset + 1, keys=(), key=())
        over = [old for old in Refill.of(self._writer.tail.state) if old.finished is not None and old.finished < first]
        state: dict[str, bytes | None] = {f"{REFILL}{old.id}": None for old in over}
        state[f"{REFILL}{refill.id}"] = finished.encode()
        self._say((RefillFinished(refill.id),) if refill.started else (), state=state)

    def _say(
        self,
        events: tuple[Event, ...] = (),
        rows: tuple[TableRows, ...] = (),
        packed: PackedRows | None = None,
        state: State | None = None,
        part: int = 0,
        ends: bool = True,
    ) -> None:
        frontier = self._writer.tail.frontier
        batch = Batch(
            source=self._source,
            after=frontier.lsn,
            until=frontier.lsn,
            part=part,
            ends_transaction=ends,
            committed_at=frontier.committed_at,
            events=events,
            rows=rows,
            packed=packed,
        )
        self._append(batch, {SEQUENCE: encode({"last": self._decoder.sequence}), **self._changes(), **(state or {})})
