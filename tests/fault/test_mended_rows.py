"""Rows that are read again by their keys, while the stream goes on; from outside."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import psycopg
import pytest
from places import execute, has_rows, make_places, one
from running_hub import RunningHub, assert_ods_equals_source, eventually

from catchment.hub.sqlite import SqliteHub
from catchment.pipeline.session import REFILL


@pytest.mark.server_versions
def test_promise_1_a_row_that_a_filter_lets_in_without_all_its_values_is_read_again(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    execute(
        source_database,
        "CREATE TABLE filtered (id int PRIMARY KEY, shared bool, large text)",
        "ALTER TABLE filtered ALTER large SET STORAGE EXTERNAL",
        "ALTER TABLE filtered REPLICA IDENTITY FULL",
        "INSERT INTO filtered SELECT n, n % 2 = 0, repeat('x', 5000) FROM generate_series(1, 20) n",
        "CREATE TABLE keyed (id int, shared bool, large text, PRIMARY KEY (id, shared))",
        "ALTER TABLE keyed ALTER large SET STORAGE EXTERNAL",
        "INSERT INTO keyed SELECT n, n % 2 = 0, repeat('x', 5000) FROM generate_series(1, 20) n",
        "CREATE PUBLICATION catchment FOR TABLE filtered WHERE (shared), keyed WHERE (shared)",
    )
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.start()
    eventually(lambda: has_rows(ods_database, "orders.keyed", 10), "the first load")
    execute(source_database, "UPDATE keyed SET shared = true WHERE id <= 10", "UPDATE filtered SET shared = NOT shared")
    eventually(lambda: has_rows(ods_database, "orders.keyed", 15), "the rows that were let in")
    eventually(lambda: has_rows(ods_database, "orders.filtered", 10), "the rows that were let in")
    hub.stop()
    hub.until_caught_up()
    for table in ("keyed", "filtered"):
        sum_of = f"SELECT sum(hashtext(t::text)) FROM {{}}{table} t WHERE shared"
        assert one(ods_database, sum_of.format("orders.")) == one(source_database, sum_of.format("public."))


def test_promise_1_a_row_that_was_let_in_before_a_column_came_is_read_again(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    execute(
        source_database,
        "CREATE TABLE keyed (id int, shared bool, large text, PRIMARY KEY (id, shared))",
        "ALTER TABLE keyed ALTER large SET STORAGE EXTERNAL",
        "INSERT INTO keyed SELECT n, n % 2 = 0, repeat('x', 5000) FROM generate_series(1, 20) n",
        "CREATE PUBLICATION catchment FOR TABLE keyed WHERE (shared)",
    )
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.until_caught_up()
    execute(source_database, "UPDATE keyed SET shared = true WHERE id <= 10", "ALTER TABLE keyed ADD x int")
    with psycopg.connect(source_database, autocommit=True) as connection:
        for number in range(2_000):  # the column is told behind all of this, the rows are asked for before it
            connection.execute("INSERT INTO keyed VALUES (%s, true)", (100 + number,))
    hub.until_caught_up()
    sum_of = "SELECT sum(hashtext(t::text)) FROM {}keyed t WHERE shared"
    assert one(ods_database, sum_of.format("orders.")) == one(source_database, sum_of.format("public."))


def test_rows_that_differ_are_mended_by_their_keys(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    make_places(source_database)
    execute(source_database, "CREATE TABLE prices (price numeric PRIMARY KEY)", "INSERT INTO prices VALUES (1.00), (2)")
    hub = hub_factory({"orders": source_database}, ods=ods_database, feed=True)
    hub.start()
    eventually(lambda: has_rows(ods_database, "orders.prices", 2), "the first load")
    execute(
        ods_database,
        "UPDATE orders.places SET name = 'wrong' WHERE id = 1",
        "DELETE FROM orders.places WHERE id = 2",
        "INSERT INTO orders.places VALUES (-1, 'never there')",
        "UPDATE orders.prices SET price = 1.0 WHERE price = 1",
    )
    with closing(SqliteHub(hub.directory / "var" / "hub.sqlite")) as asked:
        for table, keys in {"places": [["1", "2", "-1", "3"]], "prices": [["1.0", "1.00"]]}.items():
            arguments = {"tables": [f"public.{table}"], "targets": None, "after": None, "keys": keys}
            number = asked.request(REFILL, "orders", arguments, "a test")
            eventually(lambda: asked.find(number).outcome is not None, "an answer")  # noqa: B023
    hub.stop()
    hub.until_caught_up()
    assert_ods_equals_source(ods_database, "orders", source_database)
