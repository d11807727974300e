"""A collector in a thread, on a real server, with what it leaves in the log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.pq import ConnStatus

from catchment.hub.memory import MemoryHub
from catchment.log.memory import MemoryLog
from catchment.model.batch import TableRows
from catchment.model.errors import SourceUnreachable
from catchment.model.table import Table
from catchment.pipeline import collector, ranges
from catchment.pipeline.collector import Collector
from catchment.pipeline.cycle import Cycle
from catchment.pipeline.kept import Kept, Window
from catchment.pipeline.session import Surroundings
from catchment.pipeline.state import Refill
from catchment.pipeline.status import LoopStatus, Stopping
from catchment.pipeline.tell import Teller
from catchment.postgres.ahead import ReadAhead
from catchment.postgres.slot import NewSlot, create_slot
from catchment.postgres.snapshot import Moment, SnapshotReader
from catchment.postgres.source import Source


def make_collector(dsn: str, directory: Path, log: MemoryLog, stopping: Stopping) -> Collector:
    around = Surroundings(Source("s", dsn, slot="s"), ("t",), log, MemoryHub(), "w", directory, LoopStatus("s"))
    return Collector(around, stopping)


@contextmanager
def collecting(dsn: str, directory: Path, log: MemoryLog) -> Iterator[Collector]:
    """A collector that runs for the block, once all that was there before is in the log."""
    stopping = Stopping()
    running = make_collector(dsn, directory, log, stopping)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while running.settled is None:
            assert thread.is_alive()
            time.sleep(0.01)
        yield running
    finally:
        stopping.now()
        thread.join()


def rows_of(log: MemoryLog) -> list[TableRows]:
    span = log.wait("s", 0, 0)
    return [rows for _, batch in log.read("s", span.first - 1, span.last) for rows in batch.rows]


@pytest.fixture
def writer(source_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(source_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (n int PRIMARY KEY, text text)")
        connection.execute("CREATE PUBLICATION catchment FOR TABLE t")
        yield connection


def test_a_stream_is_closed_before_its_connection_also_while_it_is_read_ahead(
    source_database: str, writer: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[tuple[ConnStatus, bool]] = []

    class Watched(ReadAhead):
        def close(self) -> None:
            status = self._stream._pgconn.status  # type: ignore[attr-defined]
            super().close()
            closed.append((status, all(piece.done() for piece in self._ahead)))

    monkeypatch.setattr(collector, "ReadAhead", Watched)
    log = MemoryLog()
    with collecting(source_database, tmp_path, log) as running:
        before = running.reached
        writer.execute("INSERT INTO t SELECT n, 'text' FROM generate_series(1, 300000) n")
        while running.reached == before:
            time.sleep(0.001)
    assert closed == [(ConnStatus.OK, True)]


def test_promise_4_rows_of_which_nothing_changed_meanwhile_are_told_as_they_were_held(
    source_database: str, writer: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    packed = Teller.packed

    def noting(self: Teller, *of: object) -> object:
        refill = packed(self, *of)  # type: ignore[arg-type]
        told.append(refill.rows)
        return refill

    monkeypatch.setattr(Teller, "packed", noting)
    writer.execute(
        "INSERT INTO t SELECT n, CASE n % 3 WHEN 0 THEN NULL WHEN 1 THEN 'é' ELSE '' END FROM generate_series(1, 999) n"
    )
    log = MemoryLog()
    with collecting(source_database, tmp_path, log):
        pass
    assert told == [999]
    (rows,) = rows_of(log)
    data = rows.data.to_pydict()
    assert data["n"] == [str(n) for n in range(1, 1000)]
    assert data["text"] == ["é", "", None] * 333
    assert set(data["_op"]) == {"r"}
    assert data["_seq"] == list(range(data["_seq"][0], data["_seq"][0] + 999))
    assert rows.refill is not None


def test_promise_1_what_was_open_when_a_table_was_added_behind_the_new_slot_is_read(
    source_database: str, writer: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots: list[Moment] = []
    writer.execute("CREATE TABLE late (n int PRIMARY KEY, text text)")
    with psycopg.connect(source_database) as open_transaction:

        def then_added(*slot: Any) -> NewSlot:
            made = create_slot(*slot)
            open_transaction.execute("INSERT INTO late VALUES (1, 'written before it was shared')")
            writer.execute("ALTER PUBLICATION catchment ADD TABLE late")
            return made

        def taken(self: SnapshotReader, begin: Callable[[SnapshotReader], Moment] = SnapshotReader.begin) -> Moment:
            snapshots.append(begin(self))
            if len(snapshots) == 5:  # two are enough where the table is not waited for
                open_transaction.commit()
            return snapshots[-1]

        monkeypatch.setattr(collector, "create_slot", then_added)
        monkeypatch.setattr(SnapshotReader, "begin", taken)
        log = MemoryLog()
        with collecting(source_database, tmp_path, log):
            pass
    assert [rows.data.column("n").to_pylist() for rows in rows_of(log)] == [["1"]]


def test_promise_1_a_table_that_was_read_in_part_is_begun_again_where_what_it_needs_was_trimmed(
    source_database: str, writer: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "BLOCKS", 1)
    clock = SimpleNamespace(monotonic=count().__next__)  # so a cycle reads ten blocks at most
    monkeypatch.setattr(ranges, "time", clock)
    writer.execute("INSERT INTO t SELECT n, repeat('x', 1900) FROM generate_series(1, 60) n")  # four in each block

    def cut_off(self: Teller, refill: Refill, keep: Callable[..., Refill] = Teller.keep) -> Refill:
        if keep(self, refill).progress:
            raise SourceUnreachable("cut off")
        return refill

    log = MemoryLog()
    with monkeypatch.context() as cutting:
        cutting.setattr(Teller, "keep", cut_off)
        with pytest.raises(SourceUnreachable):
            make_collector(source_database, tmp_path, log, Stopping()).run()
    assert 0 < sum(rows.data.num_rows for rows in rows_of(log)) < 60
    writer.execute("INSERT INTO t VALUES (61, 'new')")
    log.trim("s", log.wait("s", 0, 0).last)
    with collecting(source_database, tmp_path, log):
        pass
    told = {n for rows in rows_of(log) for n in rows.data.column("n").to_pylist()}
    assert told == {str(n) for n in range(1, 62)}


def test_promise_1_rows_that_cannot_be_brought_forward_because_of_a_trimmed_log_are_read_again(
    source_database: str, writer: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, since = SnapshotReader.begin, Kept.since
    trimmed: list[int] = []

    def written_before(self: SnapshotReader) -> Moment:
        writer.execute("INSERT INTO t SELECT count(*) FROM t")  # so the log goes on before it is passed
        return begin(self)

    def trimmed_before(self: Kept, cycle: Cycle, table: Table, through: int) -> Window | None:
        if not trimmed:
            trimmed.append(log.trim("s", through))
        return since(self, cycle, table, through)

    monkeypatch.setattr(SnapshotReader, "begin", written_before)
    monkeypatch.setattr(Kept, "since", trimmed_before)
    log = MemoryLog()
    with collecting(source_database, tmp_path, log):
        pass
    assert trimmed
    assert [rows.data.column("n").to_pylist() for rows in rows_of(log) if rows.refill] == [["0", "1"]]
