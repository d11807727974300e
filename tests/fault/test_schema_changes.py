"""Schema changes of every kind while the hub runs, under writes, with kills in between; from outside.

One hub follows many tables; each case changes its own. At the end ODS and feed equal the source.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest
from feed_replay import replay
from places import execute, has_rows, one
from psycopg import sql
from running_hub import RunningHub, eventually
from shared_tables import difference, differences, shared, sources_rows

ROWS = 200
FILLED = f"SELECT n, 'name ' || n, n % 7 FROM generate_series(1, {ROWS}) n"


@dataclass(frozen=True)
class Case:
    """``made``: before the first load; ``changed``: while the hub runs. ``{t}`` is a table of the case's own.

    It begins as ``id int PRIMARY KEY, name text, n int`` with some rows, unless ``made`` makes it. ``gone``: readers
    find no table of this name for a while, or another one. ``fed``: the replay of a feed, which has one key for each
    table, comes to the same.
    """

    name: str
    changed: tuple[str, ...]
    made: tuple[str, ...] = ()
    gone: bool = False
    fed: bool = True

    def statements(self, which: tuple[str, ...]) -> list[str]:
        return [each.replace("{t}", self.name) for each in which]

    @property
    def making(self) -> list[str]:
        plain = ("CREATE TABLE {t} (id int PRIMARY KEY, name text, n int)", f"INSERT INTO {{t}} {FILLED}")
        return self.statements(self.made if self.made and "CREATE TABLE {t} (" in self.made[0] else plain + self.made)


NEW = "INSERT INTO {t} VALUES (1001, 'new', 1)"
ATTACH = "ALTER TABLE {t} ATTACH PARTITION {t}_2 FOR VALUES FROM (1001) TO (2000)"
SECOND = "CREATE TABLE {t}_2 PARTITION OF {t} FOR VALUES FROM (1001) TO (2000)"
FILL_SECOND = "INSERT INTO {t}_2 SELECT n FROM generate_series(1001, 1300) n"
PARTITIONED = (
    "CREATE TABLE {t} (id int PRIMARY KEY, name text, n int) PARTITION BY RANGE (id)",
    "CREATE TABLE {t}_1 PARTITION OF {t} FOR VALUES FROM (0) TO (1001)",
    f"INSERT INTO {{t}} {FILLED}",
)
SHARE = "ALTER PUBLICATION catchment ADD TABLE {t}"
UNSHARE = "ALTER PUBLICATION catchment DROP TABLE {t}"
CASES = [
    Case("add_constant", ("ALTER TABLE {t} ADD kind text DEFAULT 'it''s \\ \"one\", {t}'", NEW)),
    Case("add_unseen", ("ALTER TABLE {t} ADD price numeric DEFAULT 1.50, ADD at timestamptz DEFAULT now()",)),
    Case("add_array", ("ALTER TABLE {t} ADD tags int[] DEFAULT '{1,2}', ADD area box DEFAULT '(1,1),(0,0)'", NEW)),
    Case("add_null", ("ALTER TABLE {t} ADD note text", NEW)),
    Case("add_changed", ("BEGIN; ALTER TABLE {t} ADD k int DEFAULT 1; UPDATE {t} SET k = 2 WHERE id < 9; COMMIT",)),
    Case("add_volatile", ("ALTER TABLE {t} ADD chance float8 DEFAULT random()",)),
    Case("add_serial", ("ALTER TABLE {t} ADD number bigserial", NEW)),
    Case("add_vacuumed", ("ALTER TABLE {t} ADD k int DEFAULT 5", "VACUUM FULL {t}")),
    Case("add_dropped", ("ALTER TABLE {t} ADD k int DEFAULT 5, ADD l int", "ALTER TABLE {t} DROP k", NEW)),
    Case("drop_one", ("ALTER TABLE {t} DROP name", "INSERT INTO {t} VALUES (1001, 1)")),
    Case("drop_unseen", ("ALTER TABLE {t} DROP name",)),
    Case("drop_add", ("ALTER TABLE {t} DROP name", "ALTER TABLE {t} ADD name text")),
    Case("drop_add_default", ("ALTER TABLE {t} DROP name, ADD name text DEFAULT 'x'", "UPDATE {t} SET n = 9")),
    Case("rename_column", ("ALTER TABLE {t} RENAME name TO title", NEW)),
    Case(
        "swap_columns",
        (
            "BEGIN; ALTER TABLE {t} RENAME a TO c; ALTER TABLE {t} RENAME b TO a;"
            "ALTER TABLE {t} RENAME c TO b; COMMIT",
            "UPDATE {t} SET a = 'new a' WHERE id = 1",
        ),
        ("ALTER TABLE {t} ADD a text DEFAULT 'a', ADD b text DEFAULT 'b'",),
    ),
    Case("widen", ("ALTER TABLE {t} ALTER v TYPE varchar(20)", "UPDATE {t} SET v = 'longer than five' WHERE id < 5"),
         ("ALTER TABLE {t} ADD v varchar(5) DEFAULT 'v'",)),
    Case("widen_to_text", ("ALTER TABLE {t} ALTER v TYPE text", "ALTER TABLE {t} ALTER d TYPE numeric(9,2)", NEW),
         ("ALTER TABLE {t} ADD v varchar(5) DEFAULT 'v', ADD d numeric(5,2) DEFAULT 1.5",)),
    Case("narrow", ("ALTER TABLE {t} ALTER name TYPE varchar(3) USING left(name, 3)",)),
    Case("int_to_bigint", ("ALTER TABLE {t} ALTER n TYPE bigint", "UPDATE {t} SET n = 5000000000 WHERE id = 1")),
    Case("key_to_bigint", ("ALTER TABLE {t} ALTER id TYPE bigint", "INSERT INTO {t} VALUES (5000000000)")),
    Case("text_to_json", ("ALTER TABLE {t} ALTER name TYPE json USING to_json(name)", "DELETE FROM {t} WHERE id = 3")),
    Case("same_type", ("ALTER TABLE {t} ALTER n TYPE int USING n + 1",)),
    Case("prints_otherwise", ("ALTER TABLE {t} ALTER c TYPE inet, ALTER r TYPE oid",),
         ("ALTER TABLE {t} ADD c cidr DEFAULT '10.0.0.1/32', ADD r regclass DEFAULT 'pg_class'",)),
    Case("renamed", ("ALTER TABLE {t} RENAME TO {t}_new", "INSERT INTO {t}_new VALUES (1001, 'new', 1)"), gone=True),
    Case("renamed_unseen", ("ALTER TABLE {t} RENAME TO {t}_new",), gone=True),
    Case("moved", ("ALTER TABLE {t} SET SCHEMA elsewhere", "DELETE FROM elsewhere.{t} WHERE id = 5"), gone=True),
    Case(
        "swapped",
        (
            "BEGIN; ALTER TABLE {t} RENAME TO passing; ALTER TABLE {t}_other RENAME TO {t};"
            "ALTER TABLE passing RENAME TO {t}_other; COMMIT",
            "UPDATE {t} SET x = 'new' WHERE id = '1'",
            "UPDATE {t}_other SET name = 'new' WHERE id = 1",
        ),
        (
            "CREATE TABLE {t}_other (id text PRIMARY KEY, x text)",
            "INSERT INTO {t}_other SELECT n, 'x ' || n FROM generate_series(1, 300) n",
        ),
    ),
    Case(
        "put_in_place",
        (
            "CREATE TABLE {t}_next (LIKE {t} INCLUDING ALL); INSERT INTO {t}_next SELECT id, upper(name) FROM {t};"
            "ALTER TABLE {t} RENAME TO {t}_old; ALTER TABLE {t}_next RENAME TO {t}",
            NEW,
            "DELETE FROM {t}_old WHERE id < 9",
        ),
        gone=True,
    ),
    Case("made_anew", ("DROP TABLE {t}; CREATE TABLE {t} (name text, id int PRIMARY KEY)",
                       "INSERT INTO {t} SELECT 'anew', n FROM generate_series(1, 300) n")),
    Case("made_anew_otherwise", ("DROP TABLE {t}; CREATE TABLE {t} (id text PRIMARY KEY, v int)",
                                 "INSERT INTO {t} SELECT n, n FROM generate_series(1, 300) n")),
    Case("another_key", ("ALTER TABLE {t} DROP CONSTRAINT {t}_pkey, ADD PRIMARY KEY (name)",
                         "UPDATE {t} SET n = 50 WHERE id = 1", "DELETE FROM {t} WHERE id = 2")),
    Case("wider_key", ("ALTER TABLE {t} DROP CONSTRAINT {t}_pkey, ADD PRIMARY KEY (name, id)",)),
    Case("key_by_index", ("ALTER TABLE {t} REPLICA IDENTITY USING INDEX {t}_name", "DELETE FROM {t} WHERE id = 2"),
         ("ALTER TABLE {t} ALTER name SET NOT NULL; CREATE UNIQUE INDEX {t}_name ON {t} (name)",)),
    Case("key_to_full", ("ALTER TABLE {t} REPLICA IDENTITY FULL", "UPDATE {t} SET id = -id WHERE id < 9")),
    Case("full_without_key", ("ALTER TABLE {t} DROP CONSTRAINT {t}_pkey", "INSERT INTO {t} VALUES (1, 'again')",
                              "DELETE FROM {t} WHERE id = 2"), ("ALTER TABLE {t} REPLICA IDENTITY FULL",)),
    Case("full_gets_key", ("DELETE FROM {t} WHERE n = 3; ALTER TABLE {t} ADD PRIMARY KEY (id)",
                           "UPDATE {t} SET n = 50 WHERE id = 1"),
         ("CREATE TABLE {t} (id int, name text, n int)", f"INSERT INTO {{t}} {FILLED}",
          "INSERT INTO {t} VALUES (3, 'twice', 3)", "ALTER TABLE {t} REPLICA IDENTITY FULL")),
    Case("no_key_any_more", ("ALTER TABLE {t} DROP CONSTRAINT {t}_pkey", "ANALYZE {t}",
                             "INSERT INTO {t} VALUES (1, 'again')"), fed=False),
    Case("unlogged", ("ALTER TABLE {t} SET UNLOGGED; UPDATE {t} SET n = 70 WHERE id < 9; ALTER TABLE {t} SET LOGGED",)),
    Case("unlogged_numbers", ("ALTER TABLE {t} SET UNLOGGED", "DELETE FROM {t} WHERE id < 9",
                              "ALTER TABLE {t} SET LOGGED"),
         ("CREATE TABLE {t} (id int PRIMARY KEY, n int)",
          f"INSERT INTO {{t}} SELECT n, n FROM generate_series(1, {ROWS}) n")),
    Case("label_renamed", ("ALTER TYPE {t}_mood RENAME VALUE 'ok' TO 'fine'",),
         ("CREATE TYPE {t}_mood AS ENUM ('ok', 'bad')", "ALTER TABLE {t} ADD m {t}_mood DEFAULT 'ok'",
          "ALTER TABLE {t} ADD ms {t}_mood[] DEFAULT '{ok,bad}'")),
    Case("label_added", ("ALTER TYPE {t}_mood ADD VALUE 'fair' BEFORE 'bad'", "UPDATE {t} SET m = 'fair' WHERE id < 5"),
         ("CREATE TYPE {t}_mood AS ENUM ('ok', 'bad')", "ALTER TABLE {t} ADD m {t}_mood DEFAULT 'ok'")),
    Case("composite", ("ALTER TYPE {t}_pair ADD ATTRIBUTE c int", "ALTER TYPE {t}_pair DROP ATTRIBUTE a"),
         ("CREATE TYPE {t}_pair AS (a int, b text)", "ALTER TABLE {t} ADD p {t}_pair DEFAULT '(1,x)'")),
    Case("vacuumed", ("VACUUM FULL {t}", NEW, "CLUSTER {t} USING {t}_pkey", "DELETE FROM {t} WHERE id = 2")),
    Case("truncated", ("BEGIN; TRUNCATE {t}; INSERT INTO {t} SELECT n FROM generate_series(1, 300) n; COMMIT",)),
    Case("constrained", ("ALTER TABLE {t} ALTER name SET NOT NULL, ALTER n SET DEFAULT 5, ADD CHECK (id > 0)", NEW,
                         "ALTER TABLE {t} ALTER name DROP NOT NULL", "INSERT INTO {t} VALUES (1002)")),
    Case("leaves", (
        "CREATE TABLE {t}_2 (LIKE {t})", FILL_SECOND,
        "ALTER TABLE {t}_2 ADD PRIMARY KEY (id)", ATTACH,
        "INSERT INTO {t} VALUES (1999)", "ALTER TABLE {t} DETACH PARTITION {t}_1", "INSERT INTO {t}_1 VALUES (0)",
        "CREATE TABLE {t}_3 PARTITION OF {t} FOR VALUES FROM (2000) TO (3000)", "INSERT INTO {t} VALUES (2001)"),
        PARTITIONED, gone=True),
]  # fmt: skip
SHARED_CASES = [
    Case("attached", (
        "CREATE TABLE {t}_2 (LIKE {t})", FILL_SECOND,
        "ALTER TABLE {t}_2 ADD PRIMARY KEY (id)", ATTACH,
        "DELETE FROM {t} WHERE id = 1005"), (*PARTITIONED, SHARE)),
    Case("attached_at_once", (
        f"BEGIN; CREATE TABLE {{t}}_2 (LIKE {{t}} INCLUDING ALL); {FILL_SECOND}; {ATTACH}; COMMIT",),
        (*PARTITIONED, SHARE)),
    Case("grown", (SECOND, "INSERT INTO {t} SELECT n FROM generate_series(1001, 1300) n"), (*PARTITIONED, SHARE)),
    Case("detached", ("INSERT INTO {t} VALUES (1999)", "ALTER TABLE {t} DETACH PARTITION {t}_1"),
         (*PARTITIONED, SECOND, FILL_SECOND, SHARE)),
    Case("leaf_truncated", ("TRUNCATE {t}_2", "INSERT INTO {t} VALUES (1500)"),
         (*PARTITIONED, SECOND, FILL_SECOND, SHARE)),
    Case("leaf_away_for_a_moment", ("ALTER TABLE {t} DETACH PARTITION {t}_2", "INSERT INTO {t}_2 VALUES (1999)",
                                    ATTACH), (*PARTITIONED, SECOND, FILL_SECOND, SHARE)),
    Case("root_column", ("ALTER TABLE {t} ADD k int DEFAULT 7, ADD l text", "INSERT INTO {t} VALUES (900)"),
         (*PARTITIONED, SHARE)),
    Case("fewer_columns", (f"{UNSHARE}; {SHARE} (id, n)",
                           "UPDATE {t} SET name = 'secret'"), (SHARE,)),
    Case("more_columns", (f"{UNSHARE}; {SHARE}", NEW),
         (f"{SHARE} (id, n)",)),
    Case("another_filter", (f"{UNSHARE}; {SHARE} WHERE (id % 3 < 2)", "DELETE FROM {t} WHERE id < 9"),
         (f"{SHARE} WHERE (id % 3 > 0)",)),
    Case("away_for_a_moment", (UNSHARE, "UPDATE {t} SET name = 'unseen'",
                               "DELETE FROM {t} WHERE id < 50", SHARE, NEW), (SHARE,)),
    Case("options", ("ALTER PUBLICATION catchment SET (publish = 'insert')", "DELETE FROM {t} WHERE id < 50",
                     "ALTER PUBLICATION catchment SET (publish = 'insert, update, delete, truncate')"), (SHARE,)),
]  # fmt: skip


@contextlib.contextmanager
def busy(dsn: str, cases: list[Case]) -> Iterator[None]:
    """Writes to every table all the while; what a changed table refuses is left."""
    stop = threading.Event()

    def write() -> None:
        number = 2000
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not stop.is_set():
                number += 1
                for case in cases:
                    table = sql.Identifier(case.name)
                    with contextlib.suppress(psycopg.Error):
                        connection.execute(sql.SQL("UPDATE {} SET n = n + 1 WHERE id = 7").format(table))
                    with contextlib.suppress(psycopg.Error):
                        insert = sql.SQL("INSERT INTO {} VALUES (%s, %s, 0)").format(table)
                        connection.execute(insert, (number, str(number)))
                stop.wait(0.02)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


@contextlib.contextmanager
def watched(dsn: str, dataset: str, cases: list[Case]) -> Iterator[list[str]]:
    """What readers with a snapshot of their own have missed: a table, or nearly all of its rows."""
    stop, missed = threading.Event(), list[str]()

    def look() -> None:
        with psycopg.connect(dsn) as reader:
            while not stop.wait(0.5):  # else no moment is left in which all that has to follow together is free
                reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                reader.execute("SELECT 1")
                for case in (case for case in cases if not case.gone):
                    relation = sql.Identifier(dataset, case.name)
                    found = reader.execute(sql.SQL("SELECT count(*) FROM {}").format(relation)).fetchone()
                    if found is None or found[0] < ROWS // 2:
                        missed.append(f"{case.name}: {found}")
                reader.rollback()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield missed
        assert thread.is_alive(), "a reader found no table"
    finally:
        stop.set()
        thread.join()


def assert_equal(hub: RunningHub, name: str, ods: str, unfed: set[str]) -> None:
    source = hub.sources[name]
    keys = """SELECT i.indrelid::regclass::text, array_agg(a.attname::text) FROM pg_index i
              JOIN pg_class c ON c.oid = i.indrelid
              JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
              WHERE CASE c.relreplident WHEN 'i' THEN indisreplident ELSE indisprimary END GROUP BY 1"""
    with psycopg.connect(source, options="-c search_path=pg_catalog") as connection:
        fed = replay(hub.feed_lines(name), dict(connection.execute(keys).fetchall()))
    wrong = list(differences(source, ods, name))
    for (schema, table), (columns, there) in sources_rows(source).items():
        found = sorted((tuple(row.get(c) for c in columns) for row in fed.get(f"{schema}.{table}", [])), key=repr)
        if found != there and table not in unfed:
            wrong.append(f"feed {table}: {difference(found, there)}")
    assert not wrong, "\n".join(wrong)


def prepare(source: str, cases: list[Case]) -> None:
    of_tables = cases is CASES
    shares = " FOR ALL TABLES" if of_tables else " WITH (publish_via_partition_root)"
    execute(source, "CREATE SCHEMA elsewhere", f"CREATE PUBLICATION catchment{shares}")
    for case in cases:
        execute(source, *case.making)


def is_filled(source: str, ods: str) -> bool:
    last = shared(source)[-1][1]
    return has_rows(ods, f"orders.{last}", int(str(one(source, f"SELECT count(*) FROM {last}"))))


@pytest.mark.parametrize("cases", [CASES, SHARED_CASES], ids=["of tables", "of what is shared"])
def test_promise_1_every_schema_change_is_followed_without_a_gap(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub], cases: list[Case]
) -> None:
    prepare(source_database, cases)
    hub = hub_factory({"orders": source_database}, ods=ods_database, feed=True)
    hub.start()
    eventually(lambda: is_filled(source_database, ods_database), "the first load")
    chance = random.Random(4)
    with watched(ods_database, "orders", cases) as missed:
        with busy(source_database, cases):
            for number, case in enumerate(cases):
                for statement in case.statements(case.changed):
                    execute(source_database, statement)
                    time.sleep(chance.choice([0, 0, 0.2]))
                if number % 10 == 9:
                    hub.kill_worker(chance)
        hub.stop()
        hub.until_caught_up()
    assert missed == []
    assert_equal(hub, "orders", ods_database, {case.name for case in cases if not case.fed})


@pytest.mark.soak
@pytest.mark.server_versions
@pytest.mark.parametrize("cases", [CASES, SHARED_CASES], ids=["of tables", "of what is shared"])
def test_promise_1_every_schema_change_while_no_hub_ran_is_found(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub], cases: list[Case]
) -> None:
    prepare(source_database, cases)
    hub = hub_factory({"orders": source_database}, ods=ods_database, feed=True)
    hub.until_caught_up()
    with busy(source_database, cases):
        for case in cases:
            execute(source_database, *case.statements(case.changed))
    hub.until_caught_up()
    assert_equal(hub, "orders", ods_database, {case.name for case in cases if not case.fed})
