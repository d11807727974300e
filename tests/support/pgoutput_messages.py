"""Builds messages of pgoutput as PostgreSQL sends them, and runs them through a decoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import pack
from typing import Any

from wire_twins import Twin

from catchment.model.batch import META
from catchment.model.lsn import Lsn
from catchment.wire.messages import Control, Relation
from catchment.wire.pgoutput import Decoder

SECOND = 1_000_000
UNCHANGED = object()
"""Stands for a TOASTed value that is not sent."""

NO_LIMIT = 1 << 30


def string(text: str) -> bytes:
    return text.encode() + b"\0"


def begin(final_lsn: int = 100, xid: int = 7, time: int = 0) -> bytes:
    return b"B" + pack(">qqI", final_lsn, time, xid)


def commit(lsn: int = 100, end_lsn: int | None = None, time: int = 0) -> bytes:
    return b"C" + pack(">Bqqq", 0, lsn, lsn + 8 if end_lsn is None else end_lsn, time)


def relation(relation: Relation) -> bytes:
    columns = (
        pack(">B", column.in_key) + string(column.name) + pack(">Ii", column.type_oid, column.typmod)
        for column in relation.columns
    )
    name = string(relation.schema) + string(relation.name) + relation.identity.value.encode()
    return b"R" + pack(">I", relation.oid) + name + pack(">h", len(relation.columns)) + b"".join(columns)


def row(values: Iterable[Any]) -> bytes:
    """TupleData: text as str or bytes, None, or UNCHANGED."""
    parts = []
    for value in values:
        if value is None:
            parts.append(b"n")
        elif value is UNCHANGED:
            parts.append(b"u")
        else:
            content = value if isinstance(value, bytes) else value.encode()
            parts.append(b"t" + pack(">i", len(content)) + content)
    return pack(">h", len(parts)) + b"".join(parts)


def insert(oid: int, new: Iterable[Any]) -> bytes:
    return b"I" + pack(">I", oid) + b"N" + row(new)


def update(
    oid: int, new: Iterable[Any], *, key: Iterable[Any] | None = None, old: Iterable[Any] | None = None
) -> bytes:
    before = b""
    if key is not None:
        before = b"K" + row(key)
    elif old is not None:
        before = b"O" + row(old)
    return b"U" + pack(">I", oid) + before + b"N" + row(new)


def delete(oid: int, *, key: Iterable[Any] | None = None, old: Iterable[Any] | None = None) -> bytes:
    return b"D" + pack(">I", oid) + (b"K" + row(key) if key is not None else b"O" + row(old or ()))


def truncate(*oids: int, options: int = 0) -> bytes:
    return b"T" + pack(">IB", len(oids), options) + pack(f">{len(oids)}I", *oids)


def logical_message(prefix: str, content: bytes, *, lsn: int = 100, transactional: bool = True) -> bytes:
    return b"M" + pack(">Bq", transactional, lsn) + string(prefix) + pack(">i", len(content)) + content


def origin(name: str, lsn: int = 1) -> bytes:
    return b"O" + pack(">q", lsn) + string(name)


def data_type(oid: int, schema: str, name: str) -> bytes:
    return b"Y" + pack(">I", oid) + string(schema) + string(name)


@dataclass
class Decoded:
    """Rows as tuples in the order of ``take``, META first."""

    decoder: Decoder
    rows: list[tuple[Relation, list[tuple[Any, ...]]]]
    events: list[Control]

    @property
    def all_rows(self) -> list[tuple[Any, ...]]:
        """Of all relations, in the order of ``_seq``."""
        return sorted((each for _, rows in self.rows for each in rows), key=lambda each: each[1])


def take(decoder: Decoder) -> list[tuple[Relation, list[tuple[Any, ...]]]]:
    taken = []
    for shape, data in decoder.take():
        data.validate(full=True)
        assert data.schema.names == [*META.names, *(column.name for column in shape.columns)]
        taken.append((shape, list(zip(*(column.to_pylist() for column in data.columns), strict=True))))
    return taken


def decode(twin: Twin, messages: Sequence[bytes], *, resume: int = 0, sequence: int = 0) -> Decoded:
    """Everything, with one ``take`` at the end."""
    decoder = twin.Decoder(Lsn(resume), sequence)
    events: list[Control] = []
    index = 0
    while index < len(messages):
        index, event = decoder.decode(messages, index, NO_LIMIT, NO_LIMIT)
        if event is not None:
            events.append(event)
    return Decoded(decoder, take(decoder), events)
