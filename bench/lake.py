"""Seconds a commit of 100,000 changes (60 updates, 20 inserts, 20 deletes of 100) takes in the lake, end to end.

From batches of text, as the log has them, to the record: current state and history, all durable. Beside it: delta-rs'
MERGE of the same changes, already typed, into the same table without a history. Then the same on a larger table; and
what reading costs after many small commits, beside the same rows freshly written. Upkeep runs as in the deliver loop.
Memory is the most (PSS) of the process that does it, reading and making up the changes included.

``python -m bench.lake 200000 800000 20000 50 500`` measures on smaller sizes, given in the order of ``measure``.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bench.memory import memory
from catchment.model.batch import Batch, RefillFinished, RefillStarted, TableRows, rows_schema
from catchment.model.frontier import Frontier
from catchment.model.lsn import Lsn
from catchment.model.table import Column, ReplicaIdentity, Table
from catchment.targets.lake import LakeTarget
from catchment.targets.lake.local import LocalStore

_COMMITS = 9
_MERGES = 3
_READS = 5
_PART = 1 << 16
_SHARE_OF_UPKEEP = 0.5
_AT = datetime(2026, 11, 23, tzinfo=UTC)
_KINDS = [
    ("id", "int8", pa.int64()),
    ("customer", "int4", pa.int32()),
    ("note", "text", pa.string()),
    ("amount", "numeric", pa.decimal128(12, 2)),
    ("ordered_at", "timestamptz", pa.timestamp("us", "UTC")),
    ("paid", "bool", pa.bool_()),
    ("weight", "float8", pa.float64()),
    ("kind", "text", pa.string()),
    ("day", "date", pa.date32()),
    ("number", "int8", pa.int64()),
]
_NUMERIC_12_2 = (12 << 16 | 2) + 4
_TABLE = Table(
    1,
    "public",
    "orders",
    tuple(
        Column(number, name, "pg_catalog", kind, _NUMERIC_12_2 if kind == "numeric" else -1, name != "id")
        for number, (name, kind, _) in enumerate(_KINDS, 1)
    ),
    ("id",),
    ReplicaIdentity.DEFAULT,
    1,
)

Ids = npt.NDArray[np.int64]


def measure(
    rows: int = 5_000_000, more: int = 20_000_000, changes: int = 100_000, commits: int = 500, few: int = 2_000
) -> dict[str, float]:
    """``changes`` a commit on tables of ``rows`` and of ``more`` rows; then ``commits`` of ``few`` changes."""
    results = {f"rows: {name}": value for name, value in _apart(_commits, rows, changes).items()}
    results |= {f"rows: delta-rs, {name}": value for name, value in _apart(_merges, rows, changes).items()}
    results |= {f"more: {name}": value for name, value in _apart(_commits, more, changes).items()}
    results |= {f"few: {name}": value for name, value in _apart(_small_commits, rows, commits, few).items()}
    return {
        **results,
        "delta-rs beside ours": results["rows: delta-rs, s a merge"] / results["rows: s a commit"],
        "more rows beside fewer": results["more: s a commit"] / results["rows: s a commit"],
        "few: read beside freshly written": results["few: s a read"] / results["few: s a read, freshly written"],
    }


def _apart(work: Callable[..., dict[str, float]], *arguments: int) -> dict[str, float]:
    """In a process of its own, so that its memory is its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def _commits(rows: int, changes: int) -> dict[str, float]:
    with _lake() as lake, _most_memory() as most:
        began = time.perf_counter()
        lake.load(rows)
        loaded = time.perf_counter() - began
        at_load = most.pop()
        took = [lake.change(changes) for _ in range(_COMMITS)]
        return {
            "s to load": loaded,
            "MB to load": at_load,
            "s a commit": statistics.median(apply for apply, _, _ in took),
            "CPU s a commit": statistics.median(cpu for _, cpu, _ in took),
            "s of upkeep after a commit": statistics.mean(upkeep for _, _, upkeep in took),
            "MB at most": most.pop(),
        }


def _merges(rows: int, changes: int) -> dict[str, float]:
    """What delta-rs offers for it; its input is typed already."""
    from deltalake import DeltaTable, write_deltalake

    made = _Rows()
    with tempfile.TemporaryDirectory() as directory, _most_memory() as most:
        for begin in range(0, rows, 8 * _PART):
            write_deltalake(directory, made.typed(np.arange(begin, min(begin + 8 * _PART, rows))), mode="append")
        took = []
        for _ in range(_MERGES):
            ids, ops = made.changed(rows, changes)
            source = made.typed(ids).append_column("_op", pa.array(ops))
            began = time.perf_counter()
            merge = DeltaTable(directory).merge(source, "t.id = s.id", source_alias="s", target_alias="t")
            merge = merge.when_matched_delete("s._op = 'd'")
            values = {name: f"s.{name}" for name, _, _ in _KINDS}
            merge.when_matched_update(values).when_not_matched_insert(values, "s._op <> 'd'").execute()
            took.append(time.perf_counter() - began)
        return {"s a merge": statistics.median(took), "MB at most": most.pop()}


def _small_commits(rows: int, commits: int, few: int) -> dict[str, float]:
    import polars
    from deltalake import write_deltalake

    with _lake() as lake, _most_memory() as most:
        lake.load(rows)
        most.pop()
        took = [lake.change(few) for _ in range(commits)]
        at_most = most.pop()
        table = lake.root / "lake" / "orders" / "public.orders"
        fresh = lake.root / "fresh"
        write_deltalake(fresh, polars.read_delta(str(table)).to_arrow())
        reads: dict[Path, list[float]] = {table: [], fresh: []}
        found = set()
        for _ in range(_READS):
            for place, times in reads.items():
                began = time.perf_counter()
                sums = [polars.len(), polars.col("id", "customer", "number", "weight").sum(), polars.col("day").max()]
                told = polars.scan_delta(str(place)).select(*sums, polars.col("note", "kind").str.len_bytes().sum())
                found.add(told.collect().row(0)[:4])
                times.append(time.perf_counter() - began)
        if len(found) != 1:
            raise RuntimeError(f"the table is not what was written: {found}")
        return {
            "s a commit": statistics.median(apply for apply, _, _ in took),
            "s of upkeep after a commit": statistics.mean(upkeep for _, _, upkeep in took),
            "s of upkeep at most": max(upkeep for _, _, upkeep in took),
            "MB at most": at_most,
            "files": len(list(table.rglob("part-*.parquet"))),
            "s a read": statistics.median(reads[table]),
            "s a read, freshly written": statistics.median(reads[fresh]),
        }


class _Rows:
    """The same ones in each run."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(1)
        self._next = 0

    def typed(self, ids: Ids) -> pa.Table:
        count, draw = len(ids), self._random
        arrays = [
            ids,
            draw.integers(0, 10**6, count),
            pa.array(draw.integers(0, 10**12, count)).cast(pa.string()),
            pa.array(draw.integers(0, 10**9, count)).cast(pa.decimal128(21, 2)).cast(pa.decimal128(12, 2)),
            pa.array(draw.integers(1_700_000_000_000_000, 1_800_000_000_000_000, count)),
            draw.random(count) < 0.5,
            draw.random(count),
            pa.array(["new", "paid", "sent", "returned"]).take(pa.array(draw.integers(0, 4, count))),
            pa.array(draw.integers(19_000, 20_000, count).astype(np.int32)),
            draw.integers(0, 10**9, count),
        ]
        columns = [
            (each if isinstance(each, pa.Array) else pa.array(each)).cast(type_)
            for each, (_, _, type_) in zip(arrays, _KINDS, strict=True)
        ]
        return pa.table(columns, names=[name for name, _, _ in _KINDS])

    def changed(self, rows: int, changes: int) -> tuple[Ids, list[str]]:
        """Which rows change, and how: three updates, an insert and a delete of five, of rows of the first load."""
        fifth = changes // 5
        self._next = max(self._next, rows)
        old = self._random.choice(rows, 4 * fifth, replace=False)
        new = np.arange(self._next, self._next + fifth)
        self._next += fifth
        order = self._random.permutation(5 * fifth)
        ops = np.concatenate([np.repeat("u", 3 * fifth), np.repeat("d", fifth), np.repeat("c", fifth)])[order]
        return np.concatenate([old, new])[order], ops.tolist()


class _Lake:
    """A source with one table, delivered to a lake."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made = _Rows()
        self._target = LakeTarget(LocalStore(root / "lake"), root / "cache", {"orders": "orders"})
        self._offset = 0
        self._seq = 0
        self._rows = 0

    def load(self, rows: int) -> None:
        self._rows = rows
        self._apply([self._batch(RefillStarted("r", (_TABLE,), ("lake",)))])
        for begin in range(0, rows, 4 * _PART):
            ends = range(begin, min(begin + 4 * _PART, rows), _PART)
            self._apply(
                [self._batch(self._told(["r"], np.arange(at, min(at + _PART, rows)), refill="r")) for at in ends]
            )
        self._apply([self._batch(RefillFinished("r"))])

    def change(self, changes: int) -> tuple[float, float, float]:
        """Seconds, and CPU seconds, that it took; and those of the upkeep behind it."""
        ids, ops = self._made.changed(self._rows, changes)
        parts = [slice(begin, begin + _PART) for begin in range(0, len(ids), _PART)]
        return self._apply([self._batch(self._told(ops[part], ids[part])) for part in parts])

    def _apply(self, batches: list[tuple[Frontier, Batch]]) -> tuple[float, float, float]:
        began, cpu = time.perf_counter(), time.process_time()
        self._target.apply("orders", batches)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        self._target.tend("orders", _SHARE_OF_UPKEEP * took)
        return took, cpu, time.perf_counter() - began - took

    def _told(self, ops: list[str], ids: Ids, refill: str | None = None) -> TableRows:
        count = len(ids)
        seq = np.arange(self._seq, self._seq + count)
        self._seq += count
        texts = [_text(column) for column in self._made.typed(ids).columns]
        arrays = [
            pa.array(ops if len(ops) == count else ops * count),
            pa.array(seq),
            pa.repeat(pa.scalar(1, pa.int64()), count),
            pa.repeat(pa.scalar(1, pa.int64()), count),
            pa.repeat(pa.scalar(_AT, pa.timestamp("us", "UTC")), count),
            pa.nulls(count, pa.list_(pa.int16())),
            *texts,
        ]
        schema = rows_schema([name for name, _, _ in _KINDS])
        return TableRows(_TABLE, pa.RecordBatch.from_arrays(arrays, schema=schema), refill)

    def _batch(self, *parts: Any) -> tuple[Frontier, Batch]:
        self._offset += 1
        until = Lsn(100 * self._offset)
        rows = tuple(part for part in parts if isinstance(part, TableRows))
        events = tuple(part for part in parts if not isinstance(part, TableRows))
        batch = Batch("orders", Lsn(until - 100), until, 0, True, _AT, events, rows)
        return Frontier(UUID(int=1), self._offset, until, _AT), batch


def _text(column: Any) -> pa.Array[Any]:
    """As PostgreSQL prints it."""
    whole = column.combine_chunks()
    if pa.types.is_timestamp(whole.type):
        return pc.binary_join_element_wise(whole.cast(pa.timestamp("us")).cast(pa.string()), "+00", "")
    if pa.types.is_boolean(whole.type):
        return pc.if_else(whole, "t", "f")
    return whole.cast(pa.string())


@contextmanager
def _lake() -> Iterator[_Lake]:
    with tempfile.TemporaryDirectory() as directory:
        yield _Lake(Path(directory))


class _Most:
    """Megabytes at most since it was asked before."""

    def __init__(self) -> None:
        self.value = 0.0

    def pop(self) -> float:
        value, self.value = self.value, 0.0
        return value


@contextmanager
def _most_memory() -> Iterator[_Most]:
    most, ended = _Most(), Event()
    pid = int(Path("/proc/self").readlink().name)

    def look() -> None:
        while not ended.wait(0.1):
            most.value = max(most.value, memory(pid))

    looking = Thread(target=look)
    looking.start()
    try:
        yield most
    finally:
        ended.set()
        looking.join()


if __name__ == "__main__":
    for what, value in measure(*map(int, sys.argv[1:])).items():
        print(f"{what:<40} {value:>12,.3f}")
