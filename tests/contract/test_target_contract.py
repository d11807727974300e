"""What every target promises, whatever it is made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder
from psycopg import sql

from catchment.changes.jsonlines import render
from catchment.model.batch import Batch, Event, RefillFinished, RefillStarted, TableRows, rows_schema
from catchment.model.frontier import Frontier
from catchment.model.lsn import Lsn
from catchment.model.table import Column, ReplicaIdentity, Table
from catchment.targets.base import Target
from catchment.targets.feed import FeedTarget
from catchment.targets.lake import LakeTarget
from catchment.targets.lake.local import LocalStore
from catchment.targets.ods.target import OdsTarget
from catchment.targets.recording import Recording, RecordingTarget

AT = datetime(2026, 11, 23, 4, 5, 6, 789012, UTC)
LOG, ANOTHER_LOG = UUID(int=1), UUID(int=2)
SOURCES = ("orders", "shipping")
ACCOUNTS = Table(
    oid=16384,
    schema="public",
    name="accounts",
    columns=(
        Column(1, "id", "pg_catalog", "int8", -1, False),
        Column(2, "note", "pg_catalog", "text", -1, True),
    ),
    key=("id",),
    identity=ReplicaIdentity.DEFAULT,
    filenode=16384,
)

Taken = list[tuple[Frontier, Batch]]


@dataclass(frozen=True)
class Kind:
    """One implementation over one storage. ``contents``: a source's data, to be compared with itself only."""

    open: Callable[[], Target]
    contents: Callable[[str], Hashable]


def recording_kind() -> Kind:
    recording: Recording = {}

    def contents(source: str) -> Hashable:
        return b"".join(render(source, batch.rows, batch.events) for _, batch in recording.get(source, ()))

    return Kind(lambda: RecordingTarget(recording=recording), contents)


def feed_kind(directory: Path) -> Kind:
    def contents(source: str) -> Hashable:
        active = directory / f"{source}.jsonl"
        if not active.exists():
            return b""
        length = json.loads(active.with_name(f"{active.name}.frontier").read_bytes())["length"]
        rotated = sorted(directory.glob(f"{source}-*.jsonl"))
        return b"".join([*(path.read_bytes() for path in rotated), active.read_bytes()[:length]])

    return Kind(lambda: FeedTarget("feed", str(directory / "{source}.jsonl")), contents)


def ods_kind(dsn: str) -> Kind:
    def contents(source: str) -> Hashable:
        with psycopg.connect(dsn) as connection:
            query = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s ORDER BY 1"
            tables = [sql.Identifier(source, name) for (name,) in connection.execute(query, [source])]
            read = sql.SQL("SELECT t::text FROM {} t ORDER BY 1")
            return tuple(tuple(connection.execute(read.format(table)).fetchall()) for table in tables)

    return Kind(lambda: OdsTarget(dsn, {source: source for source in SOURCES}, name="ods"), contents)


def lake_kind(directory: Path) -> Kind:
    root = directory / "lake"

    def contents(source: str) -> Hashable:
        records = sorted((root / "_frontier" / source).glob("*.json"))
        if not records:
            return ()
        told = json.loads(records[-1].read_bytes())["tables"]
        return tuple(rows_at(root / entry["path"], entry["version"]) for entry in told if entry["version"] is not None)

    datasets = {source: source for source in SOURCES}
    return Kind(lambda: LakeTarget(LocalStore(root), directory / "cache", datasets), contents)


def rows_at(table: Path, version: int) -> Hashable:
    """What Delta's readers see there."""
    reader = QueryBuilder().register("t", DeltaTable(str(table), version=version))
    found = pa.table(reader.execute("SELECT id, note FROM t ORDER BY id").read_all())
    return tuple(map(tuple, zip(*(column.to_pylist() for column in found.columns), strict=True)))


@pytest.fixture(params=["recording", "feed", "ods", "lake"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    match request.param:
        case "recording":
            return recording_kind()
        case "feed":
            return feed_kind(tmp_path)
        case "lake":
            return lake_kind(tmp_path)
        case _:
            return ods_kind(request.getfixturevalue("ods_database"))


@pytest.fixture
def target(kind: Kind) -> Iterator[Target]:
    opened = kind.open()
    yield opened
    opened.close()


def rows(start: int, *changes: tuple[str, int, str | None], refill: str | None = None) -> TableRows:
    """``changes``: op, id and note; ``start``: the first one's ``_seq``."""
    count = len(changes)
    arrays: list[Any] = [
        pa.array([op for op, _, _ in changes]),
        pa.array(range(start, start + count), pa.int64()),
        pa.array([900] * count, pa.int64()),
        pa.array([700] * count, pa.int64()),
        pa.array([AT] * count, pa.timestamp("us", tz="UTC")),
        pa.nulls(count, pa.list_(pa.int16())),
        pa.array([str(key) for _, key, _ in changes]),
        pa.array([note for _, _, note in changes], pa.string()),
    ]
    data = pa.RecordBatch.from_arrays(arrays, schema=rows_schema(["id", "note"]))
    return TableRows(ACCOUNTS, data, refill)


def history(source: str, log: UUID = LOG) -> Taken:
    """A first load, a transaction in two parts, one that is small, an idle position."""
    parts: Sequence[tuple[tuple[Event, ...], tuple[TableRows, ...], bool]] = [
        (
            (RefillStarted("first", (ACCOUNTS,), ("recording", "feed", "ods", "lake")),),
            (rows(1, ("r", 1, "one"), ("r", 2, None), refill="first"),),
            True,
        ),
        ((RefillFinished("first"),), (), True),
        ((), (rows(3, ("c", 3, "three"), ("u", 1, "uno")),), False),
        ((), (rows(5, ("d", 2, None), ("c", 4, source)),), True),
        ((), (rows(7, ("u", 3, "tres")),), True),
        ((), (), True),
    ]
    taken: Taken = []
    part = 0
    until = Lsn(1000)
    for offset, (events, tables, ends) in enumerate(parts, 1):
        after, until = until, Lsn(until + 100) if ends else until
        taken.append(
            (Frontier(log, offset, until, AT), Batch(source, after, until, part, ends, AT, events, tables)),
        )
        part = 0 if ends else part + 1
    return taken


def until_failure(taken: Taken) -> Iterator[tuple[Frontier, Batch]]:
    yield from taken
    raise RuntimeError("the log cannot be read")


def test_a_target_says_what_it_is(target: Target) -> None:
    assert target.name in ("recording", "feed", "ods", "lake")
    assert target.scope in ("source", "hub")
    assert target.pace.bytes > 0


def test_a_source_never_heard_of_has_no_frontier(target: Target) -> None:
    assert target.frontier("orders") is None


def test_the_frontier_is_that_of_the_last_batch(target: Target) -> None:
    taken = history("orders")
    for through in (2, 4, 5, 6):
        target.apply("orders", taken[:through])
        assert target.frontier("orders") == taken[through - 1][0]


def test_nothing_to_apply_changes_nothing(kind: Kind, target: Target) -> None:
    target.apply("orders", [])
    assert target.frontier("orders") is None
    target.apply("orders", history("orders"))
    before = kind.contents("orders")
    target.apply("orders", [])
    assert (target.frontier("orders"), kind.contents("orders")) == (history("orders")[-1][0], before)


def test_what_need_not_be_durable_is_there_all_the_same(kind: Kind, target: Target) -> None:
    taken = history("orders")
    target.apply("orders", taken)
    durable = kind.contents("orders")
    target.forget("orders")
    target.apply("orders", taken[:4], durable=False)
    target.apply("orders", taken[4:], durable=False)
    target.apply("orders", [])
    assert (target.frontier("orders"), kind.contents("orders")) == (taken[-1][0], durable)


def test_an_idle_position_moves_the_frontier_only(kind: Kind, target: Target) -> None:
    taken = history("orders")
    target.apply("orders", taken[:-1])
    before = kind.contents("orders")
    target.apply("orders", taken[-1:])
    assert target.frontier("orders") == taken[-1][0]
    assert kind.contents("orders") == before


def test_promise_1_batches_applied_again_change_nothing(kind: Kind, target: Target) -> None:
    taken = history("orders")
    target.apply("orders", taken)
    before = kind.contents("orders")
    target.apply("orders", taken)
    target.apply("orders", taken[2:4])
    assert (target.frontier("orders"), kind.contents("orders")) == (taken[-1][0], before)


def test_promise_1_batches_that_are_partly_known_amount_to_the_same(kind: Kind, target: Target) -> None:
    target.apply("orders", history("orders"))
    at_once = kind.contents("orders")
    target.forget("orders")
    taken = history("orders")
    target.apply("orders", taken[:1])
    target.apply("orders", taken[:4])
    target.apply("orders", taken[2:])
    assert (target.frontier("orders"), kind.contents("orders")) == (taken[-1][0], at_once)


@pytest.mark.parametrize("told", [2, 3, 4])
def test_promise_3_a_failure_on_the_way_leaves_data_and_frontier_as_they_were(
    kind: Kind, target: Target, told: int
) -> None:
    taken = history("orders")
    target.apply("orders", taken[:2])
    before = kind.contents("orders")
    with pytest.raises(RuntimeError, match="the log cannot be read"):
        target.apply("orders", until_failure(taken[: 2 + told]))
    assert (target.frontier("orders"), kind.contents("orders")) == (taken[1][0], before)

    target.apply("orders", taken)
    after = kind.contents("orders")
    assert target.frontier("orders") == taken[-1][0]
    target.forget("orders")
    target.apply("orders", taken)
    assert kind.contents("orders") == after


def test_two_sources_do_not_touch_each_other(kind: Kind, target: Target) -> None:
    orders, shipping = history("orders"), history("shipping", ANOTHER_LOG)
    target.apply("orders", orders[:4])
    before = kind.contents("orders")
    target.apply("shipping", shipping)
    assert (target.frontier("orders"), kind.contents("orders")) == (orders[3][0], before)
    assert target.frontier("shipping") == shipping[-1][0]
    assert kind.contents("shipping") != before


def test_forget_removes_all_of_one_source_and_nothing_of_another(kind: Kind, target: Target) -> None:
    never = kind.contents("orders")
    target.apply("orders", history("orders"))
    target.apply("shipping", history("shipping"))
    before = kind.contents("shipping")
    target.forget("orders")
    assert (target.frontier("orders"), kind.contents("orders")) == (None, never)
    assert (target.frontier("shipping"), kind.contents("shipping")) == (history("shipping")[-1][0], before)


def test_a_source_never_heard_of_can_be_forgotten(target: Target) -> None:
    target.forget("orders")
    assert target.frontier("orders") is None


def test_promise_1_another_target_over_the_same_storage_goes_on_where_the_first_one_was_closed(kind: Kind) -> None:
    taken = history("orders")
    first = kind.open()
    first.apply("orders", taken[:4])
    before = kind.contents("orders")
    first.close()

    second = kind.open()
    assert (second.frontier("orders"), kind.contents("orders")) == (taken[3][0], before)
    second.apply("orders", taken)
    after = kind.contents("orders")
    assert second.frontier("orders") == taken[-1][0]
    second.forget("orders")
    second.apply("orders", taken)
    assert kind.contents("orders") == after
    second.close()


def test_a_batch_behind_a_gap_is_taken_and_what_was_there_stays_readable(kind: Kind, target: Target) -> None:
    taken = history("orders")
    target.apply("orders", taken[:2])
    before = kind.contents("orders")
    target.apply("orders", taken[-1:])
    assert target.frontier("orders") == taken[-1][0]
    assert kind.contents("orders") == before


def test_batches_of_another_log_are_not_taken_for_known_ones(target: Target) -> None:
    target.apply("orders", history("orders"))
    anew = history("orders", ANOTHER_LOG)
    target.apply("orders", anew[:2])
    assert target.frontier("orders") == anew[1][0]
    target.apply("orders", anew)
    assert target.frontier("orders") == anew[-1][0]
