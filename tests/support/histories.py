"""Tables that live, and the changes that PostgreSQL would stream of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

import pyarrow as pa
from hypothesis import settings
from hypothesis import strategies as st

from catchment.changes.coalesce import Net, coalesce
from catchment.model.batch import META, UNCHANGED, rows_schema
from catchment.model.table import Column, ReplicaIdentity, Table

Value = str | None
Row = tuple[Value, ...]
Key = tuple[Value, ...]
Change = tuple[str, Row, list[int] | None]

NAMES = ("v0", "k0", "_op", "k1", "v2")  # a column may be called like one of ours
KEY_TEXTS = ("1.0", "1.00", "a", "A", "é", "")
MANY = settings(max_examples=150, deadline=None)


def make_table(key: tuple[str, ...], identity: ReplicaIdentity) -> Table:
    columns = tuple(Column(number, name, "pg_catalog", "text", -1, True) for number, name in enumerate(NAMES, 1))
    return Table(16384, "public", "t", columns, key, identity, 16384)


def as_batch(changes: Sequence[Change]) -> pa.RecordBatch:
    count = len(changes)
    meta = [
        pa.array([op for op, _, _ in changes], pa.string()),
        pa.array(range(count), pa.int64()),
        pa.array([1] * count, pa.int64()),
        pa.array([7] * count, pa.int64()),
        pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * count, META.field(4).type),
        pa.array([unchanged for _, _, unchanged in changes], META.field(UNCHANGED).type),
    ]
    columns = [pa.array([row[position] for _, row, _ in changes], pa.string()) for position in range(len(NAMES))]
    return pa.RecordBatch.from_arrays([*meta, *columns], schema=rows_schema(NAMES))


def cut(batch: pa.RecordBatch, places: Sequence[int]) -> list[pa.RecordBatch]:
    """The same rows as several batches, empty ones and slices that begin anywhere among them."""
    bounds = [0, *sorted(place % (batch.num_rows + 1) for place in places), batch.num_rows]
    return [batch.slice(start, end - start) for start, end in pairwise(bounds)]


@dataclass
class History:
    """A table with a key that lives, and the changes that PostgreSQL would stream of it.

    ``known`` are the rows of a target that takes in every change at once and ignores a change that it cannot complete.
    """

    table: Table
    now: dict[Key, Row] = field(default_factory=dict)
    known: dict[Key, Row] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    told: int = 0

    def key_of(self, row: Row) -> Key:
        return tuple(row[position] for position in self.table.key_positions)

    def row(self, key: Key) -> list[Value]:
        """New values, each of its own, now and then NULL or empty."""
        row: list[Value] = []
        for _ in NAMES:
            self.told += 1
            row.append({0: None, 1: ""}.get(self.told % 7, str(self.told)))
        for position, text in zip(self.table.key_positions, key, strict=True):
            row[position] = text
        return row

    def tell(self, op: str, row: Sequence[Value], left_out: Sequence[int] = (), source: Key | None = None) -> None:
        hidden = tuple(None if position in left_out else value for position, value in enumerate(row))
        self.changes.append((op, hidden, sorted(left_out) or None))
        self.now[self.key_of(tuple(row))] = tuple(row)
        if not left_out or (source is not None and source in self.known):
            self.known[self.key_of(tuple(row))] = tuple(row)

    def tell_old(self, op: str, key: Key) -> None:
        row = self.now[key]
        if self.table.identity is not ReplicaIdentity.FULL:
            row = tuple(v if position in self.table.key_positions else None for position, v in enumerate(row))
        self.changes.append((op, row, None))

    def update(self, old: Key, new: Key, bits: int) -> None:
        before = self.now[old]
        row = self.row(new)
        left_out = [p for p in range(len(NAMES)) if bits >> p & 1 and (p not in self.table.key_positions)]
        if bits >> 5 & 1 and old == new:
            # A key so long that it was TOASTed is not sent again either, but then its old value always is.
            left_out = sorted({*left_out, *self.table.key_positions})
        for position in left_out:
            row[position] = before[position]
        full = self.table.identity is ReplicaIdentity.FULL
        if full or old != new or set(left_out) & set(self.table.key_positions):
            self.tell_old("b", old)
        del self.now[old]
        was_known = old in self.known
        if full or was_known or not set(left_out) - set(self.table.key_positions):
            self.known.pop(old, None)
            self.known[new] = tuple(row)
        self.changes.append(
            (
                "u",
                tuple(None if p in left_out else value for p, value in enumerate(row)),
                left_out or None,
            )
        )
        self.now[new] = tuple(row)

    def play(
        self, commands: Sequence[tuple[int, int, int, int]], *, filtered: bool = False, reads: bool = True
    ) -> None:
        keys = [(one, two)[: len(self.table.key)] for one in KEY_TEXTS[:3] for two in KEY_TEXTS[1:4]]
        keys = sorted(set(keys))
        tmp = ("tmp",) * len(self.table.key)
        for what, one, two, bits in commands:
            live = sorted(self.now)
            free = [key for key in keys if key not in self.now]
            some = live[one % len(live)] if live else None
            other = live[two % len(live)] if live else None
            if what == 0 and free:
                left_out = [0, 4] if filtered and bits & 1 else []
                self.tell("c", self.row(free[one % len(free)]), left_out)
            elif some is None or other is None:
                continue
            elif what in (1, 2):
                self.update(some, some, bits)
            elif what == 3 and free:
                self.update(some, free[two % len(free)], bits)
            elif what == 4:
                self.tell_old("d", some)
                del self.now[some]
                self.known.pop(some, None)
            elif what == 5 and reads:
                self.tell("r", self.now[some])
            elif what == 6 and some != other:
                self.update(some, tmp, bits)
                self.update(other, some, bits)
                self.update(tmp, other, bits)
            elif what == 7:
                self.runs.append(len(self.changes))

    def nets(self, places: Sequence[int]) -> list[Net]:
        bounds = [0, *self.runs, len(self.changes)]
        runs = [self.changes[start:end] for start, end in pairwise(bounds)]
        return [coalesce(self.table, cut(as_batch(run), places)) for run in runs]


def keys_of(columns: Sequence[pa.Array]) -> list[Key]:
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def land(table: Table, target: dict[Key, Row], net: Net) -> None:
    """What a target does with a net: fill, delete, upsert."""
    gone = keys_of(net.gone)
    assert len(set(gone)) == len(gone)
    data = net.rows
    rows = list(zip(*(column.to_pylist() for column in data.columns[len(META) :]), strict=True))
    upserts: dict[Key, Row] = {}
    for row, origin, unchanged in zip(rows, keys_of(net.origin), data.column(UNCHANGED).to_pylist(), strict=True):
        own = tuple(row[position] for position in table.key_positions)
        assert own not in upserts
        assert origin != own
        assert unchanged is None or unchanged
        if unchanged:
            source = target.get(own if origin[0] is None else origin)
            if source is None:
                continue
            assert all(row[position] is None for position in unchanged)
            row = tuple(source[p] if p in unchanged else value for p, value in enumerate(row))
        upserts[own] = row
    for key in gone:
        target.pop(key, None)
    target.update(upserts)


def initial(table: Table, count: int) -> History:
    history = History(table)
    history.play([(0, number, 0, 0) for number in range(count)])
    history.changes.clear()
    return history


commands = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 8), st.integers(0, 8), st.integers(0, 63)), max_size=40)
cuts = st.lists(st.integers(0, 60), max_size=4)
keyed_tables = st.builds(
    make_table,
    st.sampled_from([("k0",), ("k1", "k0")]),
    st.sampled_from([ReplicaIdentity.DEFAULT, ReplicaIdentity.INDEX, ReplicaIdentity.FULL]),
)


@dataclass
class Bag:
    """The life of a table without a key: its rows now, and the changes that led there."""

    now: list[Row] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def play(self, commands: Sequence[tuple[int, int, int, int]]) -> None:
        for what, one, two, bits in commands:
            values: list[Value] = [(None, "", "x")[two % 3], "y", (None, "")[one % 2], "z", "w"]
            if what in (0, 7) or not self.now:
                self.changes.append(("cr"[what % 2], tuple(values), None))
                self.now.append(tuple(values))
                continue
            old = self.now.pop(one % len(self.now))
            if what < 5:
                left_out = [position for position in range(len(NAMES)) if bits >> position & 1]
                new = tuple(old[p] if p in left_out else value for p, value in enumerate(values))
                sent = tuple(None if p in left_out else value for p, value in enumerate(new))
                self.changes += [("b", old, None), ("u", sent, left_out or None)]
                self.now.append(new)
            else:
                self.changes.append(("d", old, None))
