"""What is not looked at again must not have changed: the digest of the catalog, and the server's pulse."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import psycopg
import pytest
from running_hub import eventually

from catchment.postgres.catalog import PublishedTable, published_tables
from catchment.postgres.connection import connect, of_source
from catchment.postgres.unchanged import catalog_digest, pulse

SOURCE = of_source("orders")
BEFORE = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TYPE pair AS (a int, b int);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE places (id int PRIMARY KEY, name text, mood mood, pair pair, size positive);
CREATE UNIQUE INDEX by_name ON places (name);
CREATE TABLE days (day int, note text) PARTITION BY RANGE (day);
CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (1) TO (2);
CREATE TABLE days_2 (day int, note text);
CREATE PUBLICATION catchment FOR TABLE places, days WITH (publish_via_partition_root = true);
"""
CHANGES = (
    "ALTER TABLE places ADD COLUMN at timestamptz DEFAULT now()",
    "ALTER TABLE places ADD COLUMN of text DEFAULT 'x'",
    "ALTER TABLE places DROP COLUMN at",
    "ALTER TABLE places RENAME COLUMN of TO off",
    "ALTER TABLE places ALTER COLUMN off TYPE varchar(9)",
    "ALTER TABLE places ALTER COLUMN name SET NOT NULL",
    "ALTER TABLE places REPLICA IDENTITY USING INDEX by_name",
    "ALTER TABLE places REPLICA IDENTITY FULL",
    "ALTER TABLE places RENAME TO spots",
    "CREATE SCHEMA other; ALTER TABLE spots SET SCHEMA other",
    "ALTER SCHEMA other RENAME TO another",
    "ALTER TYPE mood ADD VALUE 'fair'",
    "ALTER TYPE mood RENAME VALUE 'bad' TO 'worse'",
    "ALTER TYPE pair ADD ATTRIBUTE c int",
    "VACUUM FULL another.spots",
    "TRUNCATE another.spots",
    "ALTER TABLE days ATTACH PARTITION days_2 FOR VALUES FROM (2) TO (3)",
    "TRUNCATE days_1",
    "ALTER TABLE days DETACH PARTITION days_2",
    "ALTER PUBLICATION catchment SET TABLE another.spots (id, name), days WHERE (day > 1)",
    "ALTER PUBLICATION catchment DROP TABLE days",
    "ALTER PUBLICATION catchment SET (publish_via_partition_root = false)",
    "ALTER PUBLICATION catchment SET TABLES IN SCHEMA public",
    "DROP TABLE another.spots",
    "DROP PUBLICATION catchment; CREATE PUBLICATION catchment FOR ALL TABLES",
)


def seen(connection: psycopg.Connection) -> dict[int, PublishedTable]:
    """Without the estimates, which the digest leaves out."""
    published = published_tables(connection, "catchment", SOURCE)
    return {oid: replace(table, estimated_rows=None) for oid, table in published.items()}


def owner(dsn: str) -> psycopg.Connection:
    return psycopg.connect(dsn, autocommit=True)


@pytest.mark.server_versions
def test_every_change_of_the_catalog_gives_it_another_digest(source_database: str) -> None:
    with closing(connect(source_database, SOURCE)) as connection, owner(source_database) as writer:
        writer.execute(BEFORE)
        digests = [catalog_digest(connection, SOURCE)]
        for statement in CHANGES:
            for each in statement.split("; "):
                writer.execute(each)
            digests.append(catalog_digest(connection, SOURCE))
        repeated = [change for change, digest in zip(CHANGES, digests[1:], strict=True) if digests.count(digest) > 1]
        assert not repeated


def test_rows_and_what_the_planner_knows_of_them_leave_the_digest_as_it_is(source_database: str) -> None:
    with closing(connect(source_database, SOURCE)) as connection, owner(source_database) as writer:
        writer.execute(BEFORE)
        before = catalog_digest(connection, SOURCE), seen(connection)
        writer.execute("INSERT INTO places (id, name) SELECT n, n FROM generate_series(1, 1000) n")
        writer.execute("UPDATE places SET name = name || '!'")
        writer.execute("VACUUM ANALYZE places")
        assert (catalog_digest(connection, SOURCE), seen(connection)) == before


def test_a_server_on_which_anything_was_written_or_became_visible_has_another_pulse(source_database: str) -> None:
    with closing(connect(source_database, SOURCE)) as connection, owner(source_database) as writer:
        writer.execute(BEFORE)
        before = pulse(connection, SOURCE)
        with writer.transaction():
            writer.execute("INSERT INTO places (id) VALUES (1)")
            open_there = pulse(connection, SOURCE)
        assert len({before, open_there, pulse(connection, SOURCE)}) == 3
        eventually(lambda: pulse(connection, SOURCE) == pulse(connection, SOURCE), "the server comes to rest")
