"""Batches written by hand, and a look into the ODS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from types import EllipsisType
from uuid import UUID, uuid4
from zlib import crc32

import psycopg
import pyarrow as pa

from catchment.model.batch import (
    META,
    Batch,
    Event,
    Place,
    RefillFinished,
    RefillStarted,
    TableRows,
    Truncated,
    rows_schema,
)
from catchment.model.frontier import Frontier
from catchment.model.lsn import Lsn
from catchment.model.table import Column, ReplicaIdentity, Table
from catchment.targets.ods.target import OdsTarget

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

Change = tuple[str | EllipsisType | None, ...]
"""An ``_op`` and the values; ``...`` for a TOASTed value that was not sent."""


def table(name: str, *columns: str, key: Sequence[str] = ("id",), schema: str = "public") -> Table:
    """``table("accounts", "id int4", "name text")``; an extension's type is ``citext@citext``."""
    return Table(
        oid=crc32(f"{schema}.{name}".encode()),
        schema=schema,
        name=name,
        columns=tuple(column(number, text) for number, text in enumerate(columns, 1)),
        key=tuple(key),
        identity=ReplicaIdentity.DEFAULT if key else ReplicaIdentity.FULL,
        filenode=1,
    )


def column(number: int, text: str) -> Column:
    name, kind = text.rsplit(" ", 1)
    kind, _, extension = kind.partition("@")
    kind, _, typmod = kind.partition("%")
    schema, _, type_name = kind.rpartition(".")
    return Column(number, name, schema or "pg_catalog", type_name, int(typmod or -1), name != "id", extension or None)


def reshaped(old: Table, *columns: Column | str) -> Table:
    """The next version, with these columns; one given as text is new."""
    numbers = count(max(one.number for one in old.columns) + 1)
    made = tuple(one if isinstance(one, Column) else column(next(numbers), one) for one in columns)
    return replace(old, columns=made, version=old.version + 1)


class Source:
    """One source's log, delivered to the ODS as it is written."""

    def __init__(self, target: OdsTarget, name: str = "orders", log: UUID | None = None) -> None:
        self.target = target
        self.name = name
        self.log = log or uuid4()
        self.offset = 0
        self._seq = count(1)

    def rows(self, shape: Table, changes: Iterable[Change], refill: str | None = None) -> TableRows:
        return rows(shape, changes, refill, self._seq)

    def place(self) -> Place:
        return Place(next(self._seq), Lsn(self.offset), 700, NOON)

    def batch(self, *parts: Event | TableRows, ends: bool = True) -> tuple[Frontier, Batch]:
        """The next batch of the log."""
        self.offset += 1
        until = Lsn(self.offset * 100)
        batch = Batch(
            self.name,
            Lsn(until - 100),
            until,
            part=0,
            ends_transaction=ends,
            committed_at=NOON,
            events=tuple(part for part in parts if not isinstance(part, TableRows)),
            rows=tuple(part for part in parts if isinstance(part, TableRows)),
        )
        return Frontier(self.log, self.offset, until, NOON), batch

    def apply(self, *batches: tuple[Frontier, Batch]) -> None:
        self.target.apply(self.name, iter(batches))

    def out_of_date(self) -> dict[str, str | None]:
        """What the target says of this source."""
        return dict(self.target.out_of_date(self.name))

    def change(self, shape: Table, *changes: Change) -> None:
        """Deliver these changes in a batch of their own."""
        self.apply(self.batch(self.rows(shape, changes)))

    def happen(self, *events: Event) -> None:
        self.apply(self.batch(*events))

    def truncate(self, *shapes: Table) -> None:
        self.happen(Truncated(shapes, self.place()))

    def begin(self, refill: str, shape: Table, *read: Sequence[str | None]) -> None:
        """A refill of this table, and the rows that it reads."""
        self.apply(
            self.batch(
                RefillStarted(refill, (shape,), ("ods",)), self.rows(shape, [("r", *row) for row in read], refill)
            )
        )

    def finish(self, refill: str) -> None:
        self.happen(RefillFinished(refill))

    def load(self, shape: Table, *read: Sequence[str | None]) -> None:
        """A first load, or a refill, from begin to end."""
        refill = f"refill {next(self._seq)}"
        self.begin(refill, shape, *read)
        self.finish(refill)


def rows(shape: Table, changes: Iterable[Change], refill: str | None, seq: Iterable[int]) -> TableRows:
    """The changes as columns."""
    names = [one.name for one in shape.columns]
    changes = [(op, *values, *[None] * (len(names) - len(values))) for op, *values in changes]
    left_out = [[at for at, value in enumerate(values) if value is ...] or None for _, *values in changes]
    meta = [
        [op for op, *_ in changes],
        [number for number, _ in zip(seq, changes, strict=False)],
        [0] * len(changes),
        [700] * len(changes),
        [NOON] * len(changes),
        left_out,
    ]
    told = [[None if change[at] is ... else change[at] for change in changes] for at in range(1, len(names) + 1)]
    schema = rows_schema(names)
    arrays = [pa.array(values, field.type) for values, field in zip([*meta, *told], schema, strict=True)]
    assert len(arrays) == len(META) + len(names)
    return TableRows(shape, pa.RecordBatch.from_arrays(arrays, schema=schema), refill)


class Ods:
    """The ODS as its readers see it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.connection = psycopg.connect(dsn, autocommit=True)

    def rows(self, relation: str) -> list[str]:
        """All rows as PostgreSQL prints them, in the order of their texts."""
        return [row for (row,) in self.connection.execute(f"SELECT t::text FROM {relation} t ORDER BY t::text")]

    def one(self, query: str, *values: object) -> object:
        row = self.connection.execute(query, values or None).fetchone()
        assert row is not None
        return row[0]

    def exists(self, relation: str) -> bool:
        return self.one("SELECT to_regclass(%s)", relation) is not None

    def execute(self, statement: str) -> None:
        self.connection.execute(statement)

    def forget_relations(self) -> None:
        """Have recorded what earlier versions did: of each table its name alone."""
        self.execute("UPDATE catchment.tables SET shape = (shape::jsonb - 'relation' - 'registry')::text")
