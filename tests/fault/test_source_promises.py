"""What a source can rely on, and what happens to one whose slot is lost; from outside."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from places import KEYS, confirmed, execute, has_rows, make_places, one
from psycopg.conninfo import make_conninfo
from running_hub import RunningHub, assert_feed_equals_source, assert_ods_equals_source, eventually

from catchment.demo.cluster import Cluster
from catchment.model.lsn import Lsn
from catchment.postgres.connection import connect, of_source
from catchment.postgres.replication import ReplicationConnection


@pytest.mark.every_server_version
def test_promise_2_a_stopped_target_holds_no_wal_back_and_catches_up(
    source_database: str, private_cluster: Cluster, hub_factory: Callable[..., RunningHub]
) -> None:
    make_places(source_database)
    ods = private_cluster
    hub = hub_factory({"orders": source_database}, ods=ods.dsn())
    hub.start()
    eventually(lambda: has_rows(ods.dsn(), "orders.places", 1000), "the first load")
    ods.stop()
    for number in range(3):
        before = confirmed(source_database, "catchment_orders")
        execute(source_database, f"INSERT INTO places VALUES ({2000 + number}, 'while it is away')")
        eventually(lambda: confirmed(source_database, "catchment_orders") > before, "an acknowledgement")  # noqa: B023
    eventually(lambda: hub.status()["targets"][0]["state"] == "retrying", "the target's trouble in the status")
    assert "catchment" not in (hub.status()["targets"][0]["remedy"] or "").partition(";")[0].split("password")[1:]
    ods.start()
    eventually(lambda: has_rows(ods.dsn(), "orders.places", 1003), "the target to catch up")


@pytest.mark.server_versions
def test_promise_2_an_idle_source_beside_a_busy_neighbour_retains_little_wal(
    private_cluster: Cluster, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    server = private_cluster
    execute(server.dsn(), "CREATE DATABASE neighbour")
    make_places(server.dsn())
    hub = hub_factory({"orders": server.dsn()}, ods=ods_database)
    hub.start()
    eventually(lambda: has_rows(ods_database, "orders.places", 1000), "the first load")
    eventually(lambda: hub.status()["targets"][0]["frontier"] is not None, "its frontier to be told")
    frontier = hub.status()["targets"][0]["frontier"]
    execute(
        server.dsn("neighbour"), "CREATE TABLE busy AS SELECT n, repeat('x', 500) FROM generate_series(1, 300000) n"
    )
    retained = """SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) < 64 * 2^20 FROM pg_replication_slots
                  WHERE slot_name = 'catchment_orders'"""
    execute(server.dsn(), "CHECKPOINT")
    eventually(lambda: one(server.dsn(), retained) is True, "the slot to let go of the neighbour's WAL")
    eventually(lambda: Lsn.parse(hub.status()["targets"][0]["frontier"]) > Lsn.parse(frontier), "the frontier to move")


@pytest.mark.server_versions
def test_promise_1_a_feed_added_after_the_log_was_trimmed_is_complete(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    make_places(source_database)
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.extra = "[log]\nmax_bytes = 1048576\n"
    hub.write()
    hub.start()
    eventually(lambda: has_rows(ods_database, "orders.places", 1000), "the first load")
    for _ in range(20):
        execute(source_database, "UPDATE places SET name = md5(random()::text) || md5(random()::text)")
    files = hub.directory / "var" / "log" / "orders"
    first = "00000000000000000001.sqlite"
    eventually(lambda: files.exists() and not (files / first).exists(), "the log to be trimmed")
    hub.stop()
    hub.feed = True
    hub.write()
    hub.until_caught_up()
    assert_ods_equals_source(ods_database, "orders", source_database)
    assert_feed_equals_source(hub, "orders", KEYS)


@pytest.mark.server_versions
@pytest.mark.parametrize("how", ["dropped", "made anew"])
def test_a_lost_slot_stops_its_source_alone_and_the_remedy_mends_it(
    source_database: str,
    second_source_database: str,
    ods_database: str,
    hub_factory: Callable[..., RunningHub],
    how: str,
) -> None:
    for dsn in (source_database, second_source_database):
        make_places(dsn)
    hub = hub_factory({"orders": source_database, "payments": second_source_database}, ods=ods_database)
    hub.until_caught_up()
    execute(source_database, "SELECT pg_drop_replication_slot('catchment_orders')")
    execute(source_database, "DELETE FROM places WHERE id <= 10", "UPDATE places SET name = 'changed' WHERE id = 11")
    if how == "made anew":
        execute(source_database, "SELECT pg_create_logical_replication_slot('catchment_orders', 'pgoutput')")
    stopped = hub.command("run", "--until-caught-up", expect=1)
    assert "source orders: slot catchment_orders" in stopped.stderr
    assert "run `catchment backfill orders`" in stopped.stderr
    hub.start()
    eventually(lambda: hub.source_status("orders")["state"] == "stopped", "the source to stop")
    execute(second_source_database, "INSERT INTO places VALUES (5000, 'new')")
    eventually(lambda: has_rows(ods_database, "payments.places", 1001), "the other source to go on")
    assert has_rows(ods_database, "orders.places", 1000)
    hub.command("backfill", "orders")
    eventually(lambda: has_rows(ods_database, "orders.places", 990), "the source to be read again")
    hub.stop()
    hub.until_caught_up()
    assert_ods_equals_source(ods_database, "orders", source_database)


@pytest.mark.server_versions
def test_promise_1_a_commit_that_waits_for_a_standby_is_not_lost_by_a_backfill(
    private_cluster: Cluster, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    source = private_cluster.dsn()
    make_places(source)
    hub = hub_factory({"orders": source}, ods=ods_database)
    hub.until_caught_up()
    execute(source, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    private_cluster.restart()
    hub.start()
    insert = "INSERT INTO places VALUES (2000, 'streamed before others see it')"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(execute, source, insert)
        try:
            eventually(lambda: has_rows(ods_database, "orders.places", 1001), "the change to be streamed")
            assert has_rows(source, "public.places", 1000)
            hub.command("backfill", "orders", "--no-wait")
            eventually(lambda: hub.source_status("orders")["state"] == "refilling", "the backfill to begin")
            execute(source, "SET synchronous_commit = local; CREATE TABLE elsewhere (); DROP TABLE elsewhere")
            time.sleep(1)
            assert has_rows(ods_database, "orders.places", 1001)
        finally:
            execute(source, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
        waiting.result()
    eventually(lambda: hub.source_status("orders")["state"] == "streaming", "the backfill to end")
    hub.stop()
    hub.until_caught_up()
    assert_ods_equals_source(ods_database, "orders", source)
    assert has_rows(ods_database, "orders.places", 1001)


@pytest.mark.server_versions
def test_a_column_that_is_added_arrives_with_its_default(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    make_places(source_database)
    hub = hub_factory({"orders": source_database}, ods=ods_database, feed=True)
    hub.start()
    eventually(lambda: has_rows(ods_database, "orders.places", 1000), "the first load")
    execute(
        source_database,
        "ALTER TABLE places ADD COLUMN kind text DEFAULT 'house'",
        "INSERT INTO places (id, name, kind) VALUES (2000, 'new', 'shop')",
    )
    hub.stop()
    hub.until_caught_up()
    assert one(ods_database, "SELECT count(*) FROM orders.places WHERE kind = 'house'") == 1000
    assert_ods_equals_source(ods_database, "orders", source_database)


@pytest.mark.server_versions
def test_a_table_that_is_published_later_is_backfilled(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    make_places(source_database)
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.start()
    eventually(lambda: has_rows(ods_database, "orders.places", 1000), "the first load")
    execute(
        source_database, "CREATE TABLE later (id int PRIMARY KEY)", "INSERT INTO later SELECT generate_series(1, 50)"
    )
    eventually(lambda: has_rows(ods_database, "orders.later", 50), "the new table")
    hub.stop()
    hub.until_caught_up()
    assert_ods_equals_source(ods_database, "orders", source_database)


def test_a_table_that_a_view_in_the_ods_holds_stops_alone_and_its_remedy_mends_it(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    make_places(source_database)
    execute(source_database, "CREATE TABLE other (id int PRIMARY KEY)")
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.until_caught_up()
    execute(ods_database, "CREATE VIEW seen AS SELECT name FROM orders.places")
    execute(
        source_database,
        "ALTER TABLE places ALTER name TYPE varchar(90)",
        "INSERT INTO places VALUES (2000, 'new')",
        "INSERT INTO other VALUES (1)",
    )
    stopped = hub.command("run", "--until-caught-up", expect=1)
    assert "source orders, table public.places: " in stopped.stderr
    assert "drop what depends on it (public.seen), then `catchment backfill orders public.places`" in stopped.stderr
    assert has_rows(ods_database, "orders.other", 1)
    assert has_rows(ods_database, "seen", 1000)
    execute(ods_database, "DROP VIEW seen")
    hub.start()
    hub.command("backfill", "orders", "public.places")
    eventually(lambda: has_rows(ods_database, "orders.places", 1001), "the table in its new shape")
    hub.stop()
    hub.until_caught_up()
    assert_ods_equals_source(ods_database, "orders", source_database)


@pytest.mark.server_versions
def test_a_source_that_does_not_know_its_encoding_is_read_as_utf8_or_refused(
    source_cluster: Cluster,
    database_factory: Callable[..., str],
    ods_database: str,
    hub_factory: Callable[..., RunningHub],
) -> None:
    source = database_factory(source_cluster, "ascii", "TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    make_places(source)
    execute(source, "INSERT INTO places VALUES (2000, convert_from('\\xc3a4', 'SQL_ASCII'))")
    hub = hub_factory({"orders": source}, ods=ods_database)
    hub.until_caught_up()
    execute(source, "INSERT INTO places VALUES (2001, convert_from('\\xe28098', 'SQL_ASCII'))")
    hub.until_caught_up()
    assert one(ods_database, "SELECT string_agg(name, ' ' ORDER BY id) FROM orders.places WHERE id >= 2000") == "ä ‘"
    execute(source, "INSERT INTO places VALUES (2002, convert_from('\\xff', 'SQL_ASCII'))")
    refused = hub.command("run", "--until-caught-up", expect=1)
    assert "source orders, table public.places" in refused.stderr
    assert "UTF-8" in refused.stderr


def test_promise_2_a_source_does_not_compile_what_it_is_asked(source_database: str) -> None:
    execute(source_database, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET jit = on', current_database()); END $$")
    connection = connect(source_database, of_source("orders"))
    try:
        assert connection.execute("SHOW jit").fetchone() == ("off",), "that takes a second for each look at the catalog"
    finally:
        connection.close()


@pytest.mark.every_server_version
def test_promise_2_a_server_does_not_wait_long_for_a_hub_that_vanished(source_database: str) -> None:
    """A cut cannot be played on one machine, whose kernel answers for both ends."""
    shown = """SELECT concat_ws(' ', current_setting('tcp_keepalives_idle'),
                               current_setting('tcp_keepalives_interval'), current_setting('tcp_keepalives_count'))"""
    dsn = make_conninfo(source_database, host="127.0.0.1")
    with connect(dsn, of_source("orders")) as connection:
        assert connection.execute(shown).fetchone() == ("20 10 3",)
    with ReplicationConnection(dsn, of_source("orders")) as replication:
        assert replication.execute(shown) == [("20 10 3",)]
