"""A collector in a thread, on a real server, with what it leaves in the log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import ConnStatus

from catchment.hub.memory import MemoryHub
from catchment.log.memory import MemoryLog
from catchment.model.batch import TableRows
from catchment.pipeline import collector
from catchment.pipeline.collector import Collector
from catchment.pipeline.session import Surroundings
from catchment.pipeline.status import LoopStatus, Stopping
from catchment.pipeline.tell import Teller
from catchment.postgres.ahead import ReadAhead
from catchment.postgres.slot import NewSlot, create_slot
from catchment.postgres.snapshot import Moment, SnapshotReader
from catchment.postgres.source import Source


@contextmanager
def collecting(dsn: str, directory: Path, log: MemoryLog) -> Iterator[Collector]:
    """A collector that runs for the block, once all that was there before is in the log."""
    stopping = Stopping()
    around = Surroundings(Source("s", dsn, slot="s"), ("t",), log, MemoryHub(), "w", directory, LoopStatus("s"))
    running = Collector(around, stopping)
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
    return [rows for _, batch in log.read("s", 0, log.wait("s", 0, 0).last) for rows in batch.rows]


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
