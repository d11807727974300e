"""Consecutive changes of one source as Arrow columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from catchment.model.lsn import Lsn
from catchment.model.table import Table

_META_FIELDS: list[pa.Field[Any]] = [
    pa.field("_op", pa.string(), nullable=False),
    pa.field("_seq", pa.int64(), nullable=False),
    pa.field("_lsn", pa.int64(), nullable=False),
    pa.field("_xid", pa.int64(), nullable=False),
    pa.field("_committed_at", pa.timestamp("us", tz="UTC"), nullable=False),
    pa.field("_unchanged", pa.list_(pa.int16()), nullable=True),
]
META = pa.schema(_META_FIELDS)
"""The first fields of ``TableRows.data``; the table's columns follow, as strings.

``_op``: ``r`` read by a backfill, ``c`` create, ``u`` update, ``d`` delete, ``b`` what the replica identity sent of the
row before the following ``u``. ``_seq``: order over all tables of the source. ``_lsn``: where the commit record begins.
``_unchanged``: positions in ``Table.columns`` whose TOASTed values were not sent; null when none.

Fields are found by position, never by name: a table may have a column called ``_op`` too.
"""

OP, SEQ, LSN, XID, COMMITTED_AT, UNCHANGED = range(len(META))


def rows_schema(columns: Iterable[str]) -> pa.Schema:
    """The layout of ``TableRows.data`` for a table with columns of these names."""
    return pa.schema([*_META_FIELDS, *(pa.field(name, pa.string()) for name in columns)])


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a source's order an event stands: the same four values that every row carries."""

    seq: int
    lsn: Lsn
    xid: int
    committed_at: datetime


@dataclass(frozen=True, slots=True)
class SchemaChanged:
    """From here on the table has this shape. ``before``: the one it had, whose rows stay; null for a new table.

    Columns are the same where their numbers are; what rows have in a new one is its ``missing``.
    """

    table: Table
    before: Table | None = None


@dataclass(frozen=True, slots=True)
class Truncated:
    """These tables were emptied together."""

    tables: tuple[Table, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class RefillStarted:
    """From here on all rows of these tables are told anew, for the targets named.

    A target begins a shadow for each of the tables, empty, also when it had begun one before: a refill that was
    interrupted says this again. The ``r`` rows that follow and the stream's changes build it up; a refill of
    several tables says this for each of them at the place where that table's rows begin.
    """

    refill: str
    tables: tuple[Table, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RefillFinished:
    """All shadows of this refill are complete: they change over in one transaction."""

    refill: str


@dataclass(frozen=True, slots=True)
class Message:
    """What ``pg_logical_emit_message`` wrote.

    https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION
    """

    prefix: str
    content: bytes
    place: Place


Event = SchemaChanged | Truncated | RefillStarted | RefillFinished | Message


@dataclass(frozen=True, slots=True)
class TableRows:
    """Rows of one table in the order of ``_seq``; ``data`` is laid out as ``META`` says.

    ``refill`` is the refill that the rows belong to (all of them ``r``), null for what came out of the stream.
    """

    table: Table
    data: pa.RecordBatch
    refill: str | None = None


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows of one table that a backfill has read, packed as it held them: a log stores them as they are.

    ``message``: ``count`` rows of the table's columns alone, as strings, an encapsulated message of Arrow's. ``first``:
    where the first of them stands; the others follow it by ``_seq``.
    """

    table: Table
    message: pa.Buffer
    count: int
    first: Place
    refill: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive changes of one source: first the events, then the rows.

    ``after`` is exclusive, ``until`` the end of the last transaction in it. A transaction larger than one batch goes
    on in the next: such a part has ``ends_transaction`` false, ``until`` equal to ``after`` and is numbered by ``part``
    from 0; the last part closes the run. A batch with neither events nor rows states that nothing of interest
    happened up to ``until``. ``packed`` is only on its way into a log, which gives it back behind the other rows.
    """

    source: str
    after: Lsn
    until: Lsn
    part: int
    ends_transaction: bool
    committed_at: datetime
    events: tuple[Event, ...] = ()
    rows: tuple[TableRows, ...] = ()
    packed: PackedRows | None = None

    @property
    def changes(self) -> int:
        """How many rows it carries."""
        return sum(rows.data.num_rows for rows in self.rows) + (self.packed.count if self.packed else 0)
