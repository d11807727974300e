"""Trouble that only a person can end: it is told, it holds nobody else up, and its remedy mends it. From outside."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest
from places import execute, has_rows, make_places, one
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from running_hub import RunningHub, assert_ods_equals_source, eventually


@pytest.fixture
def reader(source_database: str) -> Iterator[str]:
    """The source's places through a role that may read what exists now, and nothing that comes later."""
    make_places(source_database)
    role = f"reader_{uuid4().hex[:8]}"
    execute(
        source_database,
        f"CREATE ROLE {role} LOGIN REPLICATION",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
    )
    yield make_conninfo("", **{**conninfo_to_dict(source_database), "user": role})
    execute(source_database, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def role_of(dsn: str) -> str:
    return str(conninfo_to_dict(dsn)["user"])


def test_promise_1_a_table_that_somebody_dropped_in_the_ods_comes_back(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    make_places(source_database)
    execute(source_database, "CREATE TABLE other (id int PRIMARY KEY)")
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.start()
    eventually(lambda: has_rows(ods_database, "orders.places", 1000), "the first load")
    execute(ods_database, "DROP TABLE orders.places")
    execute(source_database, "INSERT INTO places VALUES (2000, 'new')", "INSERT INTO other VALUES (1)")
    eventually(lambda: has_rows(ods_database, "orders.other", 1), "the other table to go on")
    eventually(lambda: has_rows(ods_database, "orders.places", 1001), "the table to come back")
    hub.stop()
    execute(ods_database, "DROP TABLE orders.places")
    hub.until_caught_up()
    assert_ods_equals_source(ods_database, "orders", source_database)


def test_what_somebody_dropped_in_the_ods_stays_away_when_it_is_shared_no_more(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    make_places(source_database)
    execute(source_database, "CREATE TABLE other (id int PRIMARY KEY)")
    execute(source_database, "DROP PUBLICATION catchment", "CREATE PUBLICATION catchment FOR TABLE places, other")
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.until_caught_up()
    execute(source_database, "ALTER PUBLICATION catchment DROP TABLE places")
    hub.until_caught_up()
    execute(ods_database, "DROP TABLE orders.places")
    hub.until_caught_up()
    assert one(ods_database, "SELECT to_regclass('orders.places') IS NULL") is True


def test_promise_5_a_table_that_may_not_be_read_is_told_and_holds_up_no_other(
    reader: str, source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    execute(source_database, "CREATE TABLE secret (id int PRIMARY KEY)", "INSERT INTO secret VALUES (1)")
    hub = hub_factory({"orders": reader}, ods=ods_database)
    first_load = hub.command("run", "--until-caught-up", expect=1)
    assert "source orders, table public.secret: permission denied for table secret" in first_load.stderr
    assert has_rows(ods_database, "orders.places", 1000)
    hub.start()
    eventually(lambda: hub.table_state("orders", "public.secret") == "stopped", "the table to stop again")
    refused = hub.command("backfill", "orders", "public.secret", expect=1)
    assert "permission denied for table secret" in refused.stderr
    execute(source_database, "INSERT INTO secret VALUES (2)", f"GRANT SELECT ON secret TO {role_of(reader)}")
    hub.command("backfill", "orders", "public.secret")
    eventually(lambda: has_rows(ods_database, "orders.secret", 2), "the table to be read")
    eventually(lambda: hub.table_state("orders", "public.secret") == "streaming", "the table to go on")
    hub.stop()
    hub.until_caught_up()


def test_a_large_table_and_a_partitioned_one_are_read_where_only_columns_are_granted(
    reader: str, source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    execute(
        source_database,
        "CREATE TABLE wide (id int PRIMARY KEY, name text, secret text) WITH (fillfactor = 10)",
        "INSERT INTO wide SELECT n, repeat('x', 50), 'secret' FROM generate_series(1, 20000) n",
        "CREATE TABLE parts (id int PRIMARY KEY, name text) PARTITION BY RANGE (id)",
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200)",
        "INSERT INTO parts SELECT n, 'part' FROM generate_series(0, 199) n",
        "DROP PUBLICATION catchment",
        "CREATE PUBLICATION catchment FOR TABLE wide (id, name), parts WITH (publish_via_partition_root)",
        f"GRANT SELECT (id, name) ON wide, parts TO {role_of(reader)}",
    )
    assert int(str(one(source_database, "SELECT pg_relation_size('wide') / 8192"))) > 1024
    hub = hub_factory({"orders": reader}, ods=ods_database)
    hub.until_caught_up()
    assert has_rows(ods_database, "orders.wide", 20000)
    assert has_rows(ods_database, "orders.parts", 200)


def test_promise_5_a_run_is_not_caught_up_without_a_table_that_came_later_and_may_not_be_read(
    reader: str, source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    hub = hub_factory({"orders": reader}, ods=ods_database)
    hub.until_caught_up()
    execute(source_database, "CREATE TABLE later (id int PRIMARY KEY)")
    for _ in range(3):
        stopped = hub.command("run", "--until-caught-up", expect=1)
        assert "table public.later: permission denied for table later" in stopped.stderr


def test_promise_5_a_publication_that_is_not_there_stops_its_source_and_costs_nothing(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    make_places(source_database)
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.until_caught_up()
    written = hub.config.read_text()
    hub.config.write_text(written.replace("[ods]", 'publication = "catchmint"\n[ods]'))
    misspelt = hub.command("run", "--until-caught-up", expect=1)
    assert "source orders: publication catchmint does not exist; " in misspelt.stderr
    hub.config.write_text(written)
    read = "SELECT count(*) FROM pg_stat_user_tables WHERE relname = 'places' AND seq_scan > 1"
    execute(source_database, "SELECT pg_stat_force_next_flush()" if is_at_least(source_database, 15) else "SELECT 1")
    before = one(source_database, read)
    hub.until_caught_up()
    assert one(source_database, read) == before
    assert_ods_equals_source(ods_database, "orders", source_database)


def test_promise_5_a_publication_that_shares_nothing_is_told_and_its_remedy_brings_the_table(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    execute(source_database, "CREATE TABLE places (id int PRIMARY KEY)", "CREATE PUBLICATION catchment")
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    nothing = hub.command("run", "--until-caught-up", expect=1)
    assert "source orders: publication catchment shares no table; have its owner run ALTER PUB" in nothing.stderr
    execute(source_database, "INSERT INTO places VALUES (1)", "ALTER PUBLICATION catchment ADD TABLE places")
    execute(source_database, "INSERT INTO places VALUES (2)")
    assert hub.command("run", "--until-caught-up").stdout.splitlines()[-1] == "caught up with orders"
    assert_ods_equals_source(ods_database, "orders", source_database)


def is_at_least(dsn: str, major: int) -> bool:
    return int(str(one(dsn, "SHOW server_version_num"))) >= major * 10000


@pytest.mark.server_versions
@pytest.mark.parametrize("running", [True, False], ids=["running", "at rest"])
def test_promise_1_a_publication_made_anew_is_a_lost_slot_and_the_remedy_mends_it(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub], running: bool
) -> None:
    make_places(source_database)
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.start()
    eventually(lambda: has_rows(ods_database, "orders.places", 1000), "the first load")
    if not running:
        hub.stop()
    execute(
        source_database,
        "DROP PUBLICATION catchment",
        "INSERT INTO places VALUES (2000, 'shared with nobody')",
        "CREATE PUBLICATION catchment FOR ALL TABLES",
        "INSERT INTO places VALUES (2001, 'new')",
    )
    if not running:
        assert "made again" in hub.command("run", "--until-caught-up", expect=1).stderr
        hub.start()
    told = "made again.*run `catchment backfill orders`"
    eventually(lambda: re.search(told, hub.source_status("orders")["remedy"] or "") is not None, "the source to stop")
    again = hub.command("backfill", "orders")
    assert again.stdout == "1,002 rows read\n"
    eventually(lambda: has_rows(ods_database, "orders.places", 1002), "the source to be read again")
    hub.stop()
    hub.until_caught_up()
    assert_ods_equals_source(ods_database, "orders", source_database)


def test_promise_5_a_slot_that_waits_for_an_open_transaction_says_so_at_once_and_ends_at_once(
    reader: str, source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    hub = hub_factory({"orders": reader}, ods=ods_database)
    with psycopg.connect(source_database) as blocking:
        blocking.execute("INSERT INTO places VALUES (2000, 'not committed')")
        hub.start()
        process = f"waits for process {blocking.info.backend_pid}"
        eventually(lambda: process in (hub.source_status("orders")["remedy"] or ""), "the transaction to be named")
        assert "None" not in hub.source_status("orders")["remedy"]
        began = time.monotonic()
        assert hub.stop() == 0
        assert time.monotonic() - began < 9, "it was ended by force"
        assert one(source_database, "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'catchment%'") == 0
        hub.start()
        eventually(lambda: process in (hub.source_status("orders")["remedy"] or ""), "the transaction to be named")
    eventually(lambda: has_rows(ods_database, "orders.places", 1001), "the first load")


def test_a_source_without_any_transaction_is_not_late(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    make_places(source_database)
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.until_caught_up()
    committed_at = one(ods_database, "SELECT committed_at FROM catchment.frontier")
    assert isinstance(committed_at, datetime)
    assert abs((datetime.now(UTC) - committed_at).total_seconds()) < 3600


def test_a_table_without_columns_is_as_good_as_any_until_it_has_rows_and_then_stops_alone(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    make_places(source_database)
    execute(source_database, "CREATE TABLE nothing ()", "CREATE TABLE emptied (n int)")
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.until_caught_up()
    execute(source_database, "ALTER TABLE emptied DROP n", "INSERT INTO nothing DEFAULT VALUES")
    execute(source_database, "INSERT INTO places VALUES (2000, 'new')")
    stopped = hub.command("run", "--until-caught-up", expect=1)
    assert "table public.nothing: has rows, but no column of them is shared; add a column," in stopped.stderr
    execute(source_database, "INSERT INTO nothing DEFAULT VALUES", "INSERT INTO places VALUES (2001, 'new')")
    hub.command("run", "--until-caught-up", expect=1)
    assert has_rows(ods_database, "orders.places", 1002)
    execute(source_database, "TRUNCATE nothing", "ALTER TABLE nothing REPLICA IDENTITY FULL")
    hub.command("backfill", "orders", "public.nothing", "public.emptied", expect=None)
    hub.until_caught_up()
    hub.command("verify", "orders")
    execute(source_database, "INSERT INTO nothing DEFAULT VALUES", "ALTER TABLE nothing ADD n int DEFAULT 7")
    hub.until_caught_up()
    assert one(ods_database, "SELECT n FROM orders.nothing") == 7


def test_promise_5_a_table_that_stops_in_the_ods_keeps_a_run_from_being_caught_up(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    make_places(source_database)
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.until_caught_up()
    execute(ods_database, "ALTER TABLE orders.places DROP COLUMN name")
    execute(source_database, "UPDATE places SET name = 'changed' WHERE id = 7")
    stopped = hub.command("run", "--until-caught-up", expect=1)
    assert "stopped: source orders, table public.places: " in stopped.stderr
    assert 'DROP TABLE "orders"."places"; in the ODS' in stopped.stderr
    execute(ods_database, "DROP TABLE orders.places")
    hub.until_caught_up()
    assert_ods_equals_source(ods_database, "orders", source_database)
