"""What may happen to a table and to a request while a backfill is due; from outside."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from places import KEYS, execute, has_rows, make_places, one
from running_hub import RunningHub, assert_feed_equals_source, assert_ods_equals_source, eventually

from catchment.demo.cluster import Cluster
from catchment.pipeline.cycle import Cycle, Piece
from catchment.pipeline.held import HeldRows
from catchment.pipeline.state import KnownTable
from catchment.postgres.catalog import published_tables
from catchment.postgres.connection import connect, of_source
from catchment.postgres.snapshot import SnapshotReader
from catchment.postgres.source import Source


def test_promise_1_a_table_left_out_for_its_shape_comes_back_whole_under_writes(
    source_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    make_places(source_database)
    hub = hub_factory({"orders": source_database}, feed=True)
    hub.until_caught_up()
    execute(
        source_database,
        "ALTER TABLE places ADD a text",
        "INSERT INTO places VALUES (2000, 'a shape that the catalog no longer has', 'a')",
        "ALTER TABLE places ADD b text",
    )
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(source_database, autocommit=True) as connection:
            number = 3000
            while not stop.is_set():
                connection.execute("INSERT INTO places VALUES (%s, 'written meanwhile')", (number,))
                number += 1

    def refills_finished() -> int:
        return sum(json.loads(line).get("event") == "refill_finished" for line in hub.feed_lines("orders"))

    before = refills_finished()
    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        hub.start()
        eventually(lambda: refills_finished() > before, "the table to be read again")
    finally:
        stop.set()
        writer.join()
    hub.stop()
    hub.until_caught_up()
    assert_feed_equals_source(hub, "orders", KEYS)


def test_promise_1_a_table_that_was_not_published_for_a_while_has_no_gap(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    make_places(source_database)
    execute(source_database, "DROP PUBLICATION catchment", "CREATE PUBLICATION catchment FOR TABLE places")
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.start()
    eventually(lambda: has_rows(ods_database, "orders.places", 1000), "the first load")
    execute(source_database, "ALTER PUBLICATION catchment DROP TABLE places")
    eventually(lambda: hub.table_state("orders", "public.places") == "retired", "the table to be retired")
    execute(source_database, "INSERT INTO places VALUES (2000, 'nobody is told')")
    execute(source_database, "ALTER PUBLICATION catchment ADD TABLE places")
    eventually(lambda: has_rows(ods_database, "orders.places", 1001), "the table to come back")
    hub.stop()
    hub.until_caught_up()
    assert_ods_equals_source(ods_database, "orders", source_database)


def test_promise_1_a_default_that_vacuum_full_has_written_out_hides_no_change_from_a_backfill(
    private_cluster: Cluster, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    source = private_cluster.dsn()
    execute(
        source,
        "CREATE TABLE places (id int PRIMARY KEY, n int NOT NULL)",
        "INSERT INTO places SELECT n, 0 FROM generate_series(1, 300) n",
        "CREATE PUBLICATION catchment FOR TABLE places",
    )
    hub = hub_factory({"orders": source}, ods=ods_database)
    hub.start()
    eventually(lambda: has_rows(ods_database, "orders.places", 300), "the first load")
    with psycopg.connect(source) as open_transaction:
        open_transaction.execute("SELECT pg_current_xact_id()")  # what was not shared has to be read after its end
        execute(
            source,
            "ALTER TABLE places ADD old int DEFAULT 5",
            # It lets everything through, but takes its time: so there is some in which to change what is being read.
            "ALTER PUBLICATION catchment SET TABLE places WHERE (md5(repeat(to_hex(id), 400000)) <> '')",
            "INSERT INTO places VALUES (301, 0)",
        )
        eventually(lambda: hub.table_state("orders", "public.places") == "refilling", "the table to be left out")
        execute(source, "VACUUM FULL places")
    reading = "SELECT count(*) > 0 FROM pg_stat_progress_copy WHERE tuples_processed > 10"
    eventually(lambda: one(source, reading) is True, "the table to be read")
    execute(source, "UPDATE places SET n = 1")
    assert one(source, reading) is True, "it was read too fast to be disturbed"
    eventually(lambda: hub.table_state("orders", "public.places") == "streaming", "the table to come back")
    hub.stop()
    hub.until_caught_up()
    assert_ods_equals_source(ods_database, "orders", source)


def test_a_dropped_table_keeps_nobody_from_being_read_again(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    make_places(source_database)
    execute(source_database, "CREATE TABLE gone (id int PRIMARY KEY)")
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.until_caught_up()
    execute(source_database, "DROP TABLE gone")
    hub.start()
    eventually(lambda: hub.source_status("orders")["state"] == "streaming", "the hub")
    hub.command("backfill", "orders")


def test_a_request_outlives_broken_connections_and_a_locked_table_holds_up_no_stream(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    make_places(source_database)
    execute(source_database, "CREATE TABLE other (id int PRIMARY KEY)")
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.start()
    eventually(lambda: has_rows(ods_database, "orders.other", 0), "the first load")
    with psycopg.connect(source_database) as holder:
        holder.execute("LOCK TABLE places IN ACCESS EXCLUSIVE MODE")
        hub.command("backfill", "orders", "public.places", "--no-wait")
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'catchment'"
        execute(source_database, f"{cut} AND datname = current_database()", "INSERT INTO other VALUES (1)")
        eventually(lambda: has_rows(ods_database, "orders.other", 1), "the stream to go on")
        state = f"file:{hub.directory}/var/hub.sqlite?mode=ro"

    def answered() -> bool:
        connection = sqlite3.connect(state, uri=True)
        try:
            return connection.execute("SELECT outcome FROM request").fetchone()[0] is not None
        finally:
            connection.close()

    eventually(answered, "the request to be answered")


def test_a_dropped_source_stays_dropped_when_its_worker_is_started_again(
    source_database: str, second_source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    for dsn in (source_database, second_source_database):
        make_places(dsn)
    hub = hub_factory({"orders": source_database, "payments": second_source_database}, ods=ods_database)
    hub.start()
    eventually(lambda: has_rows(ods_database, "payments.places", 1000), "the first load")
    hub.command("source", "drop", "payments")
    slots = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'catchment_payments'"
    assert one(source_database, slots) == 0
    for pid in (before := hub.workers()):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(hub.workers()) == len(before) and not set(hub.workers()) & set(before), "new workers")
    execute(source_database, "INSERT INTO places VALUES (2000, 'new')")
    eventually(lambda: has_rows(ods_database, "orders.places", 1001), "the other source to go on")
    time.sleep(1)
    assert one(source_database, slots) == 0
    assert hub.source_status("payments")["state"] == "dropped"


@pytest.mark.parametrize("fails", ["reading", "holding"])
def test_promise_1_a_reading_that_fails_never_passes_for_a_whole_table(
    source_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    make_places(source_database)
    translation = of_source("orders")
    with connect(source_database, translation) as connection:
        ((_, published),) = published_tables(connection, "catchment", translation).items()

    def read(self: Any, *piece: Any) -> Iterator[list[pa.Array[Any]]]:
        yield [pa.array(["1"]), pa.array(["one"])]
        if fails == "reading":
            raise MemoryError

    def finish(self: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(SnapshotReader, "read", read)
    if fails == "holding":
        monkeypatch.setattr(HeldRows, "finish", finish)
    known = KnownTable(published.table, published.relation)
    cycle = Cycle(Source("orders", source_database), known, Piece(), 0, lambda _: True, tmp_path, lambda: None)
    assert cycle.finished.wait(60)
    assert cycle.error is not None
    assert cycle.published is None
    cycle.discard()


def test_promise_2_a_reading_gives_way_to_whoever_wants_the_table_exclusively(
    private_cluster: Cluster, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    source = private_cluster.dsn()
    make_places(source)
    execute(source, "CREATE TABLE large AS SELECT n AS id, repeat('x', 300) AS text FROM generate_series(1, 600000) n")
    execute(source, "ALTER TABLE large ADD PRIMARY KEY (id)")
    hub = hub_factory({"orders": source}, ods=ods_database)
    hub.start()
    reading = "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT%large%' AND state = 'active'"
    eventually(lambda: one(source, reading) is True, "the table to be read")
    execute(source, "SET lock_timeout = '20s'; ALTER TABLE large ALTER text SET STORAGE EXTERNAL")
    eventually(lambda: has_rows(ods_database, "orders.large", 600000), "the table all the same")


def test_promise_2_a_reading_that_waits_for_an_old_transaction_gives_way_too(
    private_cluster: Cluster, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    source = private_cluster.dsn()
    make_places(source)
    hub = hub_factory({"orders": source}, ods=ods_database)
    hub.start()
    eventually(lambda: has_rows(ods_database, "orders.places", 1000), "the first load")
    with psycopg.connect(source) as open_transaction:
        open_transaction.execute("SELECT pg_current_xact_id()")
        # What it may have written to the table before that was shared will never be in the stream.
        execute(source, "CREATE TABLE late (id int PRIMARY KEY, text text)", "INSERT INTO late VALUES (1, 'one')")
        held = "SELECT count(*) > 0 FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE relname = 'late'"
        eventually(lambda: one(source, held) is True, "the table to be locked for reading")
        execute(source, "SET lock_timeout = '10s'; ALTER TABLE late ALTER text SET STORAGE EXTERNAL")
    eventually(lambda: has_rows(ods_database, "orders.late", 1), "the table all the same")
