"""The compiled twin: the same interface as the reference, with its inner loops in ``_native``.

Importing it raises ImportError where that was not built.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from catchment.model.lsn import Lsn
from catchment.wire import _native, copytext, pgoutput
from catchment.wire._messages import Messages
from catchment.wire._native import kinds, pack, unpack
from catchment.wire.control import Begin
from catchment.wire.messages import Control, Relation
from catchment.wire.rows import all_changed, assembled, committed_at, unchanged, validated

__all__ = ["Decoder", "Messages", "joined", "kinds", "pack", "parse", "render", "unpack"]


class Decoder(pgoutput.Decoder):
    """Turns pgoutput messages into Arrow columns.

    Begins, Commits and rows are taken in by compiled code as long as they are what they should be. Everything else
    goes to the reference, message by message: the rare kinds, and what is to be refused, which it says why.
    """

    def __init__(self, resume: Lsn, sequence: int) -> None:
        super().__init__(resume, sequence)
        self._native = _native.Held(resume)

    def decode(
        self, messages: Sequence[bytes], start: int, most_rows: int, most_bytes: int
    ) -> tuple[int, Control | None]:
        """See the reference."""
        index, event = start, None
        while index < len(messages) and event is None:
            index = self._run(messages, index, most_rows, most_bytes)
            if self._native.full:
                break
            if (unknown := self._native.unknown) in self._relations:
                self._native.add(unknown, self._relations[unknown])
            elif index < len(messages):
                _, event = super().decode(messages[index : index + 1], 0, most_rows, most_bytes)
                index += 1
        return index, event

    def _run(self, messages: Sequence[bytes], start: int, most_rows: int, most_bytes: int) -> int:
        native = self._native
        native.sequence, native.until = self.sequence, self.until
        native.lsn, native.time, native.xid = self._begin
        native.in_transaction, native.skipping = self.in_transaction, self._skipping
        index = native.run(messages, start, most_rows, most_bytes)
        self.sequence, self.rows, self.size = native.sequence, native.count, native.size
        self.until = Lsn(native.until)
        self._begin = Begin(Lsn(native.lsn), native.time, native.xid)
        self.in_transaction, self._skipping = native.in_transaction, native.skipping
        self.xids += native.begun
        return index

    def take(self) -> list[tuple[Relation, pa.RecordBatch]]:
        """See the reference."""
        taken = [(held[0], _rows(*held)) for held in self._native.take()]
        super().take()
        return taken

    def _announce(self, relation: Relation) -> Relation:
        if self._relations.get(relation.oid) != relation:
            self._native.forget(relation.oid)
        return super()._announce(relation)


def _rows(
    relation: Relation,
    count: int,
    ops: memoryview,
    sequences: memoryview,
    lsns: memoryview,
    xids: memoryview,
    times: memoryview,
    left_out: tuple[memoryview, memoryview] | None,
    values: _native.Buffers,
) -> pa.RecordBatch:
    each = pa.py_buffer(np.arange(count + 1, dtype=np.int32).data)
    meta: list[pa.Array[Any]] = [
        pa.Array.from_buffers(pa.string(), count, [None, each, pa.py_buffer(ops)]),
        *(
            pa.Array.from_buffers(pa.int64(), count, [None, pa.py_buffer(numbers)])
            for numbers in (sequences, lsns, xids)
        ),
        committed_at(np.frombuffer(times, np.int64)),
        _unchanged(*left_out) if left_out else all_changed(count),
    ]
    return assembled(relation, meta, _texts(count, values))


def _unchanged(ends: memoryview, columns: memoryview) -> pa.Array[Any]:
    return unchanged(np.frombuffer(ends, np.int32), np.frombuffer(columns, np.int16))


def _texts(count: int, buffers: _native.Buffers) -> Iterator[pa.Array[Any]]:
    """As binary where they may not be valid UTF-8."""
    for ascii_only, valid, ends, content in buffers:
        validity = None if valid is None else pa.py_buffer(valid)
        kind = pa.string() if ascii_only else pa.binary()
        yield pa.Array.from_buffers(kind, count, [validity, pa.py_buffer(ends), pa.py_buffer(content)])


def joined(messages: Messages) -> memoryview:
    """See the reference."""
    return memoryview(messages)


def parse(data: bytes | memoryview, columns: int) -> list[pa.Array[Any]]:
    """See the reference, which is asked what is wrong with bytes that are not well formed."""
    parsed = _native.parse(data, columns)
    if parsed is None:
        return copytext.parse(data, columns)
    try:
        return [validated(column) for column in _texts(*parsed)]
    except pa.ArrowInvalid:
        return copytext.parse(data, columns)


def render(columns: Sequence[pa.Array[Any]]) -> memoryview:
    """See the reference."""
    return _native.render(columns)
