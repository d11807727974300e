"""Changes of every shape that SQL can make of them arrive, in the order of their commits."""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg
import pytest
from places import execute, one
from running_hub import RunningHub, assert_ods_equals_source, rows

LARGE = "(SELECT string_agg(md5(n::text || i), '') FROM generate_series(1, 400) i)"
NEW = LARGE.replace("n::text", "'new'")

TABLES = """
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE plain (id int PRIMARY KEY, mood mood, large text, other text);
CREATE TABLE whole (id int PRIMARY KEY, mood mood, large text, other text);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE indexed (id int PRIMARY KEY, a text NOT NULL, b mood NOT NULL, large text, UNIQUE (b, a));
ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_b_a_key;
CREATE TABLE appended (id int PRIMARY KEY, large text);
ALTER TABLE appended REPLICA IDENTITY NOTHING;
CREATE TABLE wide (key text PRIMARY KEY, n int, large text);
CREATE TABLE bag (a int, large text);
ALTER TABLE bag REPLICA IDENTITY FULL;
CREATE TABLE linked (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, next int UNIQUE DEFERRABLE INITIALLY DEFERRED,
    large text);
ALTER TABLE linked REPLICA IDENTITY FULL;
CREATE TABLE parent (id int PRIMARY KEY, name text);
CREATE TABLE child (extra text, PRIMARY KEY (id)) INHERITS (parent);
CREATE TABLE referring (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, plain int REFERENCES plain ON DELETE CASCADE
    ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE computed (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED, m int);
ALTER TABLE plain ALTER large SET STORAGE EXTERNAL;
ALTER TABLE whole ALTER large SET STORAGE EXTERNAL;
ALTER TABLE indexed ALTER large SET STORAGE EXTERNAL;
ALTER TABLE wide ALTER large SET STORAGE EXTERNAL, ALTER key SET STORAGE EXTERNAL;
"""
PARTITIONED = f"""
CREATE TABLE sales (id int, region text, large text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE north PARTITION OF sales FOR VALUES IN ('north');
CREATE TABLE south (large text, region text NOT NULL, id int NOT NULL);
ALTER TABLE sales ATTACH PARTITION south FOR VALUES IN ('south');
CREATE TABLE rest PARTITION OF sales DEFAULT PARTITION BY RANGE (id);
CREATE TABLE rest_1 PARTITION OF rest FOR VALUES FROM (0) TO (1000);
INSERT INTO sales SELECT n, (ARRAY['north', 'south', 'east'])[n % 3 + 1], {LARGE} FROM generate_series(1, 30) n;
"""
FIRST = f"""
INSERT INTO plain SELECT n, 'sad', {LARGE}, 'x' FROM generate_series(1, 20) n;
INSERT INTO whole SELECT * FROM plain;
INSERT INTO indexed SELECT id, 'a' || id, mood, large FROM plain;
INSERT INTO appended SELECT id, large FROM plain;
INSERT INTO wide SELECT 'k' || id || left(large, 2500), id, large FROM plain;
INSERT INTO bag SELECT id % 3, large FROM plain;
INSERT INTO linked SELECT id, id % 20 + 1, large FROM plain;
INSERT INTO parent SELECT n, 'parent' FROM generate_series(1, 5) n;
INSERT INTO child SELECT n, 'child', 'c' FROM generate_series(6, 9) n;
INSERT INTO referring (plain) SELECT id FROM plain;
INSERT INTO computed (id, n) SELECT n, n FROM generate_series(1, 9) n;
"""
# Each is one transaction.
TRANSACTIONS = [
    # A TOASTed value unchanged, changed, set to null, unchanged while the key changes, of each identity.
    *(
        f"""UPDATE {table} SET other = 'y' WHERE id = 1; UPDATE {table} SET large = {NEW} WHERE id = 2;
            UPDATE {table} SET large = NULL WHERE id = 3; UPDATE {table} SET id = 104 WHERE id = 4;
            UPDATE {table} SET id = 105, mood = 'happy' WHERE id = 5; DELETE FROM {table} WHERE id = 6"""
        for table in ("plain", "whole")
    ),
    f"""UPDATE indexed SET large = {NEW} WHERE id = 1; UPDATE indexed SET id = 102 WHERE id = 2;
        UPDATE indexed SET a = 'moved' WHERE id = 3; UPDATE indexed SET b = 'happy', id = 103 WHERE id = 4;
        UPDATE indexed SET b = 'happy' WHERE id > 10; DELETE FROM indexed WHERE id = 5""",
    "INSERT INTO appended VALUES (50, 'new'), (51, NULL)",
    # A key that is itself stored apart: an update that leaves it as it is sends it as the old key only.
    f"""UPDATE wide SET n = -n WHERE n < 4; UPDATE wide SET key = 'j' || key, n = -n WHERE n BETWEEN 4 AND 6;
        UPDATE wide SET large = {NEW} WHERE n = 7; DELETE FROM wide WHERE n = 8;
        UPDATE wide SET key = 'short', n = 0 WHERE n = 9; UPDATE wide SET key = 'shorter' WHERE n = 0""",
    # Rows inserted, changed, moved, deleted and inserted again in one transaction, and in subtransactions of it.
    f"""INSERT INTO plain VALUES (200, 'sad', {NEW}, 'x'); UPDATE plain SET other = 'y' WHERE id = 200;
        UPDATE plain SET id = 201 WHERE id = 200; INSERT INTO plain VALUES (200, 'happy', 'again', NULL);
        SAVEPOINT one; DELETE FROM plain; SAVEPOINT two; INSERT INTO plain VALUES (300); ROLLBACK TO one;
        UPDATE plain SET other = 'kept' WHERE id = 7; RELEASE one; SAVEPOINT three; DELETE FROM plain WHERE id = 8;
        RELEASE three; DELETE FROM plain WHERE id = 201; INSERT INTO plain VALUES (201, NULL, '', '')""",
    """DO $$ BEGIN FOR n IN 1..30 LOOP
           BEGIN INSERT INTO plain VALUES (400 + n); UPDATE plain SET other = 'n' || n WHERE id = 9;
               IF n % 3 = 0 THEN RAISE 'undone'; END IF;
           EXCEPTION WHEN raise_exception THEN UPDATE plain SET other = other || '!' WHERE id = 10; END;
       END LOOP; END $$""",
    # Many versions of one row, keys in a ring.
    "DO $$ BEGIN FOR n IN 1..500 LOOP UPDATE whole SET other = n WHERE id = 9; END LOOP; END $$",
    """UPDATE plain SET id = -1 WHERE id = 11; UPDATE plain SET id = 11 WHERE id = 12;
       UPDATE plain SET id = 12 WHERE id = -1""",
    # Without a key, rows are equal to one another.
    "INSERT INTO bag SELECT * FROM bag; DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag)",
    "UPDATE bag SET a = a + 1; UPDATE bag SET large = NULL WHERE a = 1; DELETE FROM bag WHERE a = 2",
    # Constraints that hold at the end only; a key that is deferred is no key.
    """UPDATE linked SET id = id + 1, next = next + 1; UPDATE linked SET id = 1 WHERE id = 21;
       UPDATE linked SET next = -next WHERE id < 9; INSERT INTO referring (plain) VALUES (500);
       INSERT INTO plain VALUES (500)""",
    "UPDATE parent SET name = name || '!'; DELETE FROM ONLY parent WHERE id = 1; UPDATE child SET id = id + 10",
    "DELETE FROM plain WHERE id = 13; UPDATE plain SET id = 114 WHERE id = 14",
    "UPDATE computed SET n = n + 1; UPDATE computed SET m = 1 WHERE id = 3; DELETE FROM computed WHERE id = 4",
    # Everything that was there, and some of what follows, is gone.
    """INSERT INTO whole VALUES (600); TRUNCATE whole, bag; INSERT INTO whole VALUES (601); INSERT INTO bag VALUES (1);
       SAVEPOINT one; TRUNCATE whole; ROLLBACK TO one; UPDATE whole SET other = 'after' WHERE id = 601""",
]
LAST = [
    "TRUNCATE parent; INSERT INTO parent VALUES (1, 'alone')",
    """INSERT INTO plain VALUES (700); TRUNCATE plain RESTART IDENTITY CASCADE; INSERT INTO plain VALUES (701);
       INSERT INTO referring (plain) VALUES (701)""",
    "SELECT pg_logical_emit_message(true, 'audit', 'ü'), pg_logical_emit_message(false, 'note', '')",
]
MOVES = [
    """UPDATE sales SET region = 'south' WHERE region = 'north' AND id < 9;
       UPDATE sales SET region = 'west', id = id + 500 WHERE region = 'south' AND id > 20;
       UPDATE sales SET large = 'short' WHERE id = 2; DELETE FROM sales WHERE id IN (3, 4)""",
    "INSERT INTO sales VALUES (801, 'south', NULL), (802, 'west', 'x'), (803, 'north', 'y')",
    "UPDATE rest SET id = id + 1; UPDATE sales SET region = 'north' WHERE id = 801",
    "INSERT INTO sales VALUES (999, 'north', NULL); TRUNCATE sales; INSERT INTO sales VALUES (7, 'east', 'again')",
]


def commit(dsn: str, statements: str) -> None:
    """One transaction."""
    with psycopg.connect(dsn) as connection:
        connection.execute(statements)


@pytest.mark.server_versions
def test_changes_of_every_shape_arrive(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub], server_version: int
) -> None:
    computed = "WITH (publish_generated_columns = stored)" if server_version >= 18 else ""
    execute(source_database, TABLES, FIRST, f"CREATE PUBLICATION catchment FOR ALL TABLES {computed}")
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.until_caught_up()
    assert_ods_equals_source(ods_database, "orders", source_database)
    for statements in (TRANSACTIONS, LAST):
        for statement in statements:
            commit(source_database, statement)
        hub.until_caught_up()
        assert_ods_equals_source(ods_database, "orders", source_database)
        if server_version >= 18:
            columns = ["id", "n", "twice", "m"]
            assert rows(ods_database, "orders", "computed", columns) == rows(
                source_database, "public", "computed", columns
            )
    told = [json.loads(line) for line in hub.command("log", "show", "orders").stdout.splitlines()]
    assert [(each["prefix"], each["content"]) for each in told if each.get("event") == "message"] == [
        ("note", ""),
        ("audit", "ü"),
    ], "what belongs to no transaction is first"


@pytest.mark.server_versions
def test_rows_that_change_their_partition_arrive_through_the_root_and_through_the_leaves(
    source_database: str, second_source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    sources = {"roots": source_database, "leaves": second_source_database}
    for name, dsn in sources.items():
        root = "true" if name == "roots" else "false"
        publication = f"CREATE PUBLICATION catchment FOR TABLE sales WITH (publish_via_partition_root = {root})"
        execute(dsn, PARTITIONED, publication)
    hub = hub_factory(sources, ods=ods_database)
    hub.until_caught_up()
    for moves in ((), MOVES[:2], MOVES[2:]):
        for move in moves:
            for dsn in sources.values():
                commit(dsn, move)
        if moves:
            for dsn in sources.values():
                commit(dsn, "TRUNCATE north")  # through the root the stream does not tell it
        hub.until_caught_up()
        for name, dsn in sources.items():
            assert_ods_equals_source(ods_database, name, dsn)
    assert one(ods_database, "SELECT to_regclass('roots.north') IS NULL AND to_regclass('leaves.sales') IS NULL")
