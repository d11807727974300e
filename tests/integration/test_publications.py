"""What a publication shares, read from the catalog, is what PostgreSQL's own view of it says, whatever is locked."""

from __future__ import annotations

import random

import psycopg
import pytest
from places import execute

from catchment.postgres.catalog import published_tables
from catchment.postgres.connection import connect, of_source

SOURCE = of_source("orders")

TABLES = """
CREATE SCHEMA other;
CREATE SCHEMA empty;
CREATE TABLE plain (id int PRIMARY KEY, gone int, n int, twice int GENERATED ALWAYS AS (n * 2) STORED);
ALTER TABLE plain DROP COLUMN gone;
CREATE TABLE other."a b" (id int PRIMARY KEY, "N" text);
CREATE TABLE nothing ();
CREATE TABLE parent (id int PRIMARY KEY, n int);
CREATE TABLE other.child () INHERITS (public.parent);
CREATE UNLOGGED TABLE unlogged (id int);
CREATE TEMPORARY TABLE passing (id int);
CREATE VIEW seen AS SELECT * FROM plain;
CREATE MATERIALIZED VIEW kept AS SELECT * FROM plain;
CREATE TABLE days (id int, n int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (10);
CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
CREATE TABLE other.days_2_1 PARTITION OF days_2 FOR VALUES FROM (10) TO (15);
CREATE TABLE other.days_2_2 (n int, id int PRIMARY KEY);
ALTER TABLE days_2 ATTACH PARTITION other.days_2_2 FOR VALUES FROM (15) TO (20);
CREATE UNLOGGED TABLE days_3 PARTITION OF days FOR VALUES FROM (20) TO (30);
CREATE FOREIGN DATA WRAPPER unreachable;
CREATE SERVER far FOREIGN DATA WRAPPER unreachable;
CREATE TABLE months (id int, n int) PARTITION BY RANGE (id);
CREATE FOREIGN TABLE months_1 PARTITION OF months FOR VALUES FROM (30) TO (40) SERVER far;
CREATE TABLE other.bare (id int, n int) PARTITION BY RANGE (id);
"""
BEFORE_18 = """
CREATE UNLOGGED TABLE hours (id int) PARTITION BY RANGE (id);
CREATE TABLE hours_1 PARTITION OF hours FOR VALUES FROM (0) TO (10);
"""
NAMED = (
    *("plain", "plain (id)", "plain (n, id) WHERE (n > 1 AND id IS NOT NULL)", "plain WHERE (id = 1)"),
    *("plain (id, twice)", 'other."a b" ("N", id)', "other.\"a b\" WHERE (\"N\" <> 'it''s')", "nothing"),
    *("parent", "ONLY parent", "other.child (id)", "days", "days (id)", "days WHERE (id > 3)", "days_1", "days_1 (id)"),
    *("days_2", "days_2 (n, id)", "other.days_2_1", "other.days_2_2 WHERE (n > 1)", "other.bare", "months"),
)
ALL = "ALL TABLES"
OPTIONS = ("publish_via_partition_root = true", "publish_via_partition_root = false")


def publications(chance: random.Random, version: int) -> list[str]:
    """What they are for, and with which options."""
    options = [*OPTIONS, *(f"{OPTIONS[0]}, publish_generated_columns = {how}" for how in ("stored", "none"))]
    options = options if version >= 180000 else list(OPTIONS)
    schemas = ("TABLES IN SCHEMA other", "TABLES IN SCHEMA public", "TABLES IN SCHEMA public, other, empty")
    wanted = [f"{what} WITH ({option})" for what in (ALL, *schemas) for option in options]
    for _ in range(150):
        tables = chance.sample(NAMED, chance.randint(1, 5))
        parts = [f"TABLE {', '.join(tables)}", *chance.sample(schemas, chance.choice((0, 0, 1)))]
        wanted.append(f"{', '.join(parts)} WITH ({chance.choice(options)})")
    return wanted


def told(connection: psycopg.Connection, name: str) -> set[tuple[str, str, tuple[str, ...], str | None]]:
    """By the view, without generated columns where servers list but do not publish them."""
    query = """SELECT schemaname, tablename, ARRAY(
                   SELECT a.attname::text FROM pg_attribute a
                   WHERE a.attrelid = format('%%I.%%I', schemaname, tablename)::regclass AND a.attname = ANY (attnames)
                     AND (a.attgenerated = '' OR %s) ORDER BY a.attnum), rowfilter
               FROM pg_publication_tables WHERE pubname = %s"""
    listed = connection.execute(query, [connection.info.server_version >= 180000, name])
    return {(schema, table, tuple(names), rows) for schema, table, names, rows in listed}


@pytest.mark.every_server_version
def test_what_is_shared_is_what_postgresql_says(source_database: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed: {seed}")
    made = 0
    with (
        psycopg.connect(source_database, autocommit=True) as owner,
        connect(source_database, SOURCE) as connection,
    ):
        owner.execute(TABLES if owner.info.server_version >= 180000 else TABLES + BEFORE_18)
        for wanted in publications(random.Random(seed), owner.info.server_version):
            owner.execute("SET search_path = public")
            try:
                owner.execute(f"CREATE PUBLICATION p FOR {wanted}")
            except psycopg.Error:
                continue  # not every list goes with every schema, filter or server
            owner.execute("SET search_path = pg_catalog")
            published = published_tables(connection, "p", SOURCE)
            found = {
                (each.table.schema, each.table.name, tuple(one.name for one in each.table.columns), each.row_filter)
                for each in published.values()
            }
            assert found == told(owner, "p"), wanted
            for oid, each in published.items():
                assert published_tables(connection, "p", SOURCE, only=oid) == {oid: each}, wanted
            owner.execute("DROP PUBLICATION p")
            made += 1
    assert made > 30


@pytest.mark.every_server_version
def test_promise_2_a_table_that_somebody_has_locked_holds_up_no_other(source_database: str) -> None:
    execute(source_database, "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)")
    execute(source_database, "CREATE PUBLICATION p FOR TABLE a, b")
    with psycopg.connect(source_database) as other, connect(source_database, SOURCE) as connection:
        other.execute("LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
        connection.execute("SET lock_timeout = '10ms'")
        assert {each.table.name for each in published_tables(connection, "p", SOURCE).values()} == {"a", "b"}
