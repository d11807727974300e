"""Telling the log what does not come from the stream: the rows of a backfill, and where they begin and end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from catchment.changes.backfilled import as_rows
from catchment.log.base import LogWriter, State
from catchment.model.batch import Batch, Event, RefillFinished, RefillStarted, TableRows
from catchment.model.table import Table
from catchment.pipeline.state import REFILL, SEQUENCE, TARGET, Refill, encode
from catchment.wire import Decoder


class Teller:
    """Appends between two transactions, at the place where the log stands, with what has to be known of it later.

    ``told`` counts the rows since the last refill was finished.
    """

    def __init__(
        self, source: str, writer: LogWriter, decoder: Decoder, append: Callable[[Batch, State], object]
    ) -> None:
        self._source = source
        self._writer = writer
        self._decoder = decoder
        self._append = append
        self.told = 0

    def note(self, state: State) -> None:
        """Only what has to be known after a restart."""
        self._say(state=state)

    def want(self, refill: Refill, state: State) -> None:
        """A refill is to be made."""
        self._say(state={f"{REFILL}{refill.id}": refill.encode(), **state})

    def start(self, refill: Refill, tables: tuple[Table, ...], state: State) -> Refill:
        """The rows of these tables begin; with the first of all tables, targets can begin too."""
        offset = self._writer.tail.frontier.offset + 1
        started = refill if refill.started else replace(refill, started=offset)
        known = {f"{REFILL}{refill.id}": started.encode(), **state}
        if refill.full and refill.started is None:
            known |= {f"{TARGET}{name}": encode({"offset": offset}) for name in refill.targets}
        self._say((RefillStarted(refill.id, tables, refill.targets),), state=known)
        return started

    def rows(self, refill: Refill, table: Table, chunks: Iterable[Sequence[pa.Array[Any]]]) -> Refill:
        """All rows of one table, then that it needs not be read any more.

        No change of the stream comes between: in a bag of rows it could not be told apart.
        """
        for columns in chunks:
            if columns and len(columns[0]):
                rows = as_rows(table, columns, self._decoder.sequence, self._writer.tail.frontier)
                self._decoder.sequence += rows.num_rows
                self.told += rows.num_rows
                self._say(rows=(TableRows(table, rows, refill.id),))
        left = refill.without(table.oid)
        self._say(state={f"{REFILL}{refill.id}": left.encode()})
        return left

    def finish(self, refill: Refill, first: int) -> None:
        """Let the targets change over. What ended before ``first``, the first offset kept, is forgotten."""
        finished = replace(refill, finished=self._writer.tail.frontier.offset + 1)
        over = [old for old in Refill.of(self._writer.tail.state) if old.finished is not None and old.finished < first]
        state: dict[str, bytes | None] = {f"{REFILL}{old.id}": None for old in over}
        state[f"{REFILL}{refill.id}"] = finished.encode()
        self._say((RefillFinished(refill.id),) if refill.started else (), state=state)
        self.told = 0

    def _say(
        self, events: tuple[Event, ...] = (), rows: tuple[TableRows, ...] = (), state: State | None = None
    ) -> None:
        frontier = self._writer.tail.frontier
        batch = Batch(
            source=self._source,
            after=frontier.lsn,
            until=frontier.lsn,
            part=0,
            ends_transaction=True,
            committed_at=frontier.committed_at,
            events=events,
            rows=rows,
        )
        self._append(batch, {SEQUENCE: encode({"last": self._decoder.sequence}), **(state or {})})
