"""Cuts the decoded stream into batches."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime

from catchment.log.base import State
from catchment.model.batch import Batch, Event, Message, TableRows, Truncated
from catchment.model.lsn import Lsn
from catchment.pipeline.shapes import Shapes
from catchment.pipeline.state import SEQUENCE, encode
from catchment.pipeline.streamed import Streamed
from catchment.wire.messages import LogicalMessage, Relation, Truncate
from catchment.wire.twin import Decoder, kinds

MOST_ROWS = 65_536
MOST_BYTES = 16 * 2**20

_BEGINS_WITH_SHAPE = re.compile(rb"B[OY]*R")


class Cutter:
    """Messages in, batches out: as large as what has arrived, divided where an event must stand before its rows.

    A transaction that is larger than one batch comes in parts. What is decoded of a transaction whose rest has not
    arrived yet stays here until it does.
    """

    def __init__(self, source: str, until: Lsn, decoder: Decoder, shapes: Shapes, streamed: Streamed) -> None:
        self._source = source
        self._decoder = decoder
        self._shapes = shapes
        self._streamed = streamed
        self._events: list[Event] = []
        self._part = 0
        self.until = until

    @property
    def at_boundary(self) -> bool:
        """Whether everything received so far has been handed out and no transaction is half received."""
        return not (self._decoder.in_transaction or self._decoder.rows or self._events or self._part)

    def batches(self, messages: Sequence[bytes]) -> Iterator[tuple[Batch, State]]:
        """The batches that these messages complete, each with the state to be saved with it.

        What is whole is not held back by a transaction whose rest has not arrived yet: it is cut at the last Commit. It
        is also cut before a transaction that begins with a table's shape: a change of it then stands at the begin of a
        batch, so that a target which keeps readers away for it need not do so for two of them at once.
        """
        letters = kinds(messages)
        whole = letters.rfind(b"C") + 1
        done = 0
        for end in (*(found.start() for found in _BEGINS_WITH_SHAPE.finditer(letters, 0, whole)), whole):
            if end > done:
                yield from self._decode(messages[done:end])
                yield from self._cut()
                done = end
        yield from self._decode(messages[whole:])
        full = self._decoder.size >= MOST_BYTES or self._decoder.rows >= MOST_ROWS
        if full or not self._decoder.in_transaction:
            yield from self._cut()

    def _decode(self, messages: Sequence[bytes]) -> Iterator[tuple[Batch, State]]:
        index = 0
        while index < len(messages):
            index, control = self._decoder.decode(messages, index, MOST_ROWS, MOST_BYTES)
            match control:
                case Relation():
                    if (step := self._shapes.meet(control, self._decoder.commits_at)) is not None:
                        yield from self._cut()  # what came before has the shape of before
                        self._events += self._shapes.take(step)
                case Truncate():
                    if tables := self._shapes.truncated(control.oids):
                        yield from self._cut()
                        self._events.append(Truncated(tables, control.place))
                case LogicalMessage():
                    yield from self._cut()
                    self._events.append(Message(control.prefix, control.content, control.place))
                    if not control.transactional:
                        yield from self._cut(past=control.place.lsn)
                case None if index < len(messages):
                    yield from self._cut()

    def idle(self, position: Lsn, at: datetime) -> tuple[Batch, State]:
        """The statement that nothing of interest happened up to here; at a boundary only. ``at``: server's clock."""
        batch = self._batch(position, ends=True, at=at)
        self.until = position
        return batch, self._state(())

    def _cut(self, past: Lsn | None = None) -> Iterator[tuple[Batch, State]]:
        decoder = self._decoder
        ends = not decoder.in_transaction
        until = max(self.until, decoder.until, past or self.until) if ends else self.until
        something = decoder.rows or self._events
        if not something and (not ends or (until == self.until and not self._part)):
            return
        xids = tuple(decoder.xids)
        told = (self._shapes.rows(relation, data) for relation, data in decoder.take())
        rows = tuple(rows for rows in told if rows is not None)
        batch = self._batch(until, ends, decoder.committed_at, tuple(self._events), rows)
        self._events.clear()
        self._part = 0 if ends else self._part + 1
        self.until = until
        yield batch, self._state(xids)

    def _state(self, xids: Sequence[int]) -> State:
        sequence = encode({"last": self._decoder.sequence})
        return {SEQUENCE: sequence, **self._shapes.changes(), **self._streamed.add(xids)}

    def _batch(
        self, until: Lsn, ends: bool, at: datetime, events: tuple[Event, ...] = (), rows: tuple[TableRows, ...] = ()
    ) -> Batch:
        return Batch(
            source=self._source,
            after=self.until,
            until=until,
            part=self._part,
            ends_transaction=ends,
            committed_at=at,
            events=events,
            rows=rows,
        )
