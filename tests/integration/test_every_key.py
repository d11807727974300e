"""Rows are found by keys of every kind, whatever text an equal key has, and whatever encoding a source has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from places import execute, one
from psycopg import sql
from running_hub import RunningHub, eventually, rows

from catchment.demo.cluster import Cluster
from catchment.postgres.catalog import published_tables
from catchment.postgres.connection import connect, of_source
from catchment.postgres.snapshot import SnapshotReader

PREPARATION = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s "fine"', 'happy');
CREATE TYPE pair AS (a numeric, b text);
CREATE DOMAIN amount AS numeric;
CREATE DOMAIN address AS inet;
CREATE DOMAIN truth AS boolean;
CREATE DOMAIN country AS character(3);
"""


@dataclass(frozen=True, slots=True)
class Key:
    """A type with four values; ``same`` equals the first, though it may print otherwise."""

    type: str
    values: tuple[str, str, str, str]
    same: str | None = None
    extension: str | None = None


KEYS = [
    Key("citext", ("Ann", "bob", "", "\\N"), "ANN", extension="citext"),
    Key("citext[]", ("{Ann}", "{bob,NULL}", "{}", '{""}'), "{aNN}", extension="citext"),
    Key("hstore", ("a=>1", "", 'a=>NULL,"b c"=>""', "b=>2"), extension="hstore"),
    Key("ltree", ("a.b", "a", "", "b"), extension="ltree"),
    Key("vector", ("[1,2]", "[1]", "[0,-2]", "[3]"), extension="vector"),
    Key("numeric", ("1.0", "NaN", "-Infinity", "1e200"), "1.000"),
    Key("numeric[]", ("{1.0}", "{{1,2},{3,4}}", "{}", "[0:1]={NaN,NULL}"), "{1.00}"),
    Key("numrange", ("[1.0,2)", "empty", "(,)", "[NaN,NaN]"), "[1.00,2.0)"),
    Key("nummultirange", ("{[1.0,2)}", "{}", "{(,)}", "{[1,2),[3,4)}"), "{[1.00,2.0)}"),
    Key("amount", ("1.0", "2", "3", "4"), "1.00"),
    Key("address", ("10.0.0.1", "10.0.0.1/8", "::1", "0.0.0.0/0")),
    Key("truth", ("t", "f", "f", "f")),
    Key("country", ("DE", "DEU", "", " DE")),
    Key("pair", ("(1.0,x)", '(,"")', '(2,"a ""b"", \\\\c")', "(,)"), "(1.00,x)"),
    Key("pair[]", ('{"(1.0,x)"}', "{NULL}", "{}", '{"(,)"}'), '{"(1.00,x)"}'),
    Key("mood", ("ok", "sad", 'it\'s "fine"', "happy")),
    Key("mood[]", ("{ok}", "{}", "{NULL,sad}", "{happy,ok}")),
    Key("double precision", ("0", "NaN", "-Infinity", "5e-324"), "-0"),
    Key("real", ("0", "NaN", "Infinity", "1e-45"), "-0"),
    Key("interval", ("1 mon", "-1 us", "1 day", "178000000 years"), "30 days"),
    Key("jsonb", ('{"a": 1.0}', "null", '""', "[]"), '{"a": 1.00}'),
    Key("character(4)", ("a", "", " a", "☃")),
    Key("character varying", ("a", "a ", "", "\\")),
    Key("name", ("a", "A", "", "ü")),
    Key('"char"', ("a", "A", "", "\\")),
    Key("bytea", ("\\x00ff", "\\x", "\\x00", "\\x5c")),
    Key("uuid", tuple(f"{digit * 32}" for digit in "0f7a")),
    Key("date", ("infinity", "4714-11-24 BC", "2026-11-23", "5874897-12-31")),
    Key(
        "timestamp with time zone",
        ("-infinity", "infinity", "0001-01-01 00:00:00+00 BC", "2026-11-23 12:00:00.000001+00"),
    ),
    Key("time with time zone", ("24:00:00-15:59", "00:00:00+15:59", "12:00:00+00", "12:00:00+01")),
    Key("boolean", ("t", "f", "f", "f")),
    Key("bit varying", ("", "0", "00", "1")),
    Key("inet", ("10.0.0.1/8", "10.0.0.1", "::1", "0.0.0.0/0")),
    Key("macaddr8", tuple(f"08:00:2b:01:02:03:04:{digit * 2}" for digit in "05ac")),
    Key("money", ("0", "-92233720368547758.08", "92233720368547758.07", "1")),
    Key("oid", ("0", "4294967295", "2147483648", "1")),
    Key("xid8", ("0", "18446744073709551615", "9223372036854775808", "1")),
    Key("pg_lsn", ("0/0", "FFFFFFFF/FFFFFFFF", "1/0", "0/1")),
    Key("tid", ("(0,0)", "(4294967295,65535)", "(1,0)", "(0,1)")),
    Key("regclass", ("pg_class", "-", "99999", "pg_type")),
    Key("tsvector", ("a:1A", "", "'b c'", "a:1")),
    Key("tsquery", ("a & b", "a", "!a", "a <-> b")),
    Key("oidvector", ("1 2", "", "3", "2 1")),
]
TOUCH = "UPDATE {} SET n = n + 1 WHERE key = %s"


def available(dsn: str) -> list[Key]:
    with psycopg.connect(dsn) as connection:
        offered = {name for (name,) in connection.execute("SELECT name FROM pg_available_extensions")}
    return [key for key in KEYS if key.extension is None or key.extension in offered]


@pytest.mark.server_versions
def test_rows_are_followed_by_keys_of_every_type(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    keys = available(source_database)
    extensions = {key.extension for key in keys if key.extension}
    for dsn in (source_database, ods_database):
        execute(dsn, *(f"CREATE EXTENSION {name}" for name in extensions))
    execute(source_database, PREPARATION, "CREATE PUBLICATION catchment FOR ALL TABLES")
    tables = {f"{key.type} {'full' if number % 2 else 'default'}": key for number, key in enumerate(keys)}
    values = {name: list(dict.fromkeys(key.values)) for name, key in tables.items()}
    with psycopg.connect(source_database) as connection:

        def run(name: str, statement: str, *parameters: str) -> None:
            cast = statement.replace("%s", f"%s::{tables[name].type}")
            connection.execute(sql.SQL(cast).format(sql.Identifier(name)), parameters)

        insert = "INSERT INTO {} VALUES (%s, 0, repeat('large', 4000))"
        for name, key in tables.items():
            run(name, f"CREATE TABLE {{}} (key {key.type} PRIMARY KEY, n int, large text)")
            run(name, "ALTER TABLE {} ALTER large SET STORAGE EXTERNAL")
            if name.endswith("full"):
                run(name, "ALTER TABLE {} REPLICA IDENTITY FULL")
            for value in values[name][:2]:
                run(name, insert, value)
        connection.commit()
        hub = hub_factory({"orders": source_database}, ods=ods_database)
        hub.until_caught_up()
        for name, key in tables.items():
            first, second, *others = values[name]
            for value in others:
                run(name, insert, value)
            run(name, TOUCH, first)
            if key.same:
                run(name, "UPDATE {} SET key = %s WHERE key = %s", key.same, key.same)
                run(name, TOUCH, first)
            run(name, "DELETE FROM {} WHERE key = %s", second)
        connection.commit()
        hub.until_caught_up()
        assert_same(source_database, ods_database, tables)
        for name, key in tables.items():
            first, second, *others = values[name]
            run(name, "UPDATE {} SET key = %s WHERE key = %s", second, key.same or first)
            run(name, insert, key.same or first)
            for value in others:
                run(name, TOUCH, value)
        connection.commit()
        hub.until_caught_up()
    assert_same(source_database, ods_database, tables)


@pytest.mark.server_versions
def test_promise_1_rows_are_read_by_the_very_keys_that_they_were_printed_with(source_database: str) -> None:
    """Or a repair would take them for gone."""
    keys = available(source_database)
    execute(source_database, *(f"CREATE EXTENSION {name}" for name in {key.extension for key in keys} if name))
    execute(source_database, PREPARATION, "CREATE PUBLICATION catchment FOR ALL TABLES")
    with psycopg.connect(source_database) as connection:
        for key in keys:
            name = sql.Identifier(f"by {key.type}")
            connection.execute(sql.SQL(f"CREATE TABLE {{}} (key {key.type} PRIMARY KEY)").format(name))
            insert = sql.SQL(f"INSERT INTO {{}} VALUES (%s::{key.type})")
            for value in dict.fromkeys(key.values):
                connection.execute(insert.format(name), [value])
    translation = of_source("orders")
    with connect(source_database, translation) as connection:
        tables = published_tables(connection, "catchment", translation)
    assert len(tables) == len(keys)
    for published in tables.values():
        with SnapshotReader(source_database, "catchment", published.table, translation) as reader:
            reader.begin()
            (leaf,) = reader.leaves()
            (stored,) = columns_of(reader.read(published, leaf, 0, leaf.blocks))
            (found,) = columns_of(reader.read_keys(published, [pa.array(stored, pa.string())]))
        assert sorted(found) == sorted(stored), str(published.table)


def columns_of(parts: Iterator[list[pa.Array[Any]]]) -> list[list[str]]:
    return [list(chain.from_iterable(column.to_pylist() for column in columns)) for columns in zip(*parts, strict=True)]


@pytest.mark.server_versions
def test_a_key_whose_collation_ignores_case_is_followed(
    source_database: str, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    try:
        execute(
            source_database,
            "CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        )
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this PostgreSQL was built without ICU")
    execute(
        source_database,
        "CREATE TABLE names (key text COLLATE caseless PRIMARY KEY, n int, large text)",
        "ALTER TABLE names ALTER large SET STORAGE EXTERNAL",
        "INSERT INTO names SELECT key, 0, repeat('large', 4000) FROM unnest('{Ann,bob,Ä}'::text[]) key",
        "CREATE PUBLICATION catchment FOR ALL TABLES",
    )
    hub = hub_factory({"orders": source_database}, ods=ods_database)
    hub.until_caught_up()
    execute(
        source_database,
        "UPDATE names SET key = 'ANN' WHERE key = 'ann'",
        "UPDATE names SET n = 1 WHERE key = 'aNN'",
        "DELETE FROM names WHERE key = 'BOB'",
        "INSERT INTO names VALUES ('Bob')",
        "UPDATE names SET key = lower(key) WHERE key = 'Ä'",
    )
    hub.until_caught_up()
    assert_same(source_database, ods_database, ["names"])


def assert_same(source: str, ods: str, tables: dict[str, Key] | list[str]) -> None:
    for name in tables:
        columns = ["key", "n", "large"]
        here, there = rows(source, "public", name, columns), rows(ods, "orders", name, columns)
        assert [row[:2] for row in there] == [row[:2] for row in here], name
        assert there == here, name


def test_a_source_of_another_encoding_is_read_followed_and_verified(
    source_cluster: Cluster,
    database_factory: Callable[..., str],
    ods_database: str,
    hub_factory: Callable[..., RunningHub],
) -> None:
    encodings = {"latin": "LATIN1", "ascii": "SQL_ASCII"}
    sources = {
        name: database_factory(source_cluster, name, f"TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
        for name, encoding in encodings.items()
    }
    for name, dsn in sources.items():
        # What a client of today would send: UTF-8, which a server of unknown encoding takes as it is.
        dsn += " client_encoding=" + ("UTF8" if name == "latin" else "SQL_ASCII")
        execute_utf8(
            dsn,
            'CREATE TABLE "où ça" ("clé" text PRIMARY KEY, "naïve" text, large text)',
            'ALTER TABLE "où ça" ALTER large SET STORAGE EXTERNAL',
            """INSERT INTO "où ça" SELECT 'é' || n, 'ÿ', repeat('é', 5000) FROM generate_series(1, 100) n""",
            "CREATE PUBLICATION catchment FOR ALL TABLES",
        )
        sources[name] = dsn.partition(" client_encoding")[0]
    hub = hub_factory(sources, ods=ods_database)
    hub.start()
    eventually(lambda: all(followed(ods_database, name, 100) for name in sources), "the first load")
    for name, dsn in sources.items():
        execute_utf8(
            dsn + " client_encoding=" + ("UTF8" if name == "latin" else "SQL_ASCII"),
            """UPDATE "où ça" SET "naïve" = 'ß' || "clé" WHERE "clé" < 'é3'""",
            """UPDATE "où ça" SET "clé" = 'à' WHERE "clé" = 'é7'""",
            """INSERT INTO "où ça" VALUES ('ü', '', 'ü')""",
        )
    eventually(lambda: all(followed(ods_database, name, 101) for name in sources), "the changes")
    for name in sources:
        key = f"""SELECT "clé" || length(large) FROM {name}."où ça" WHERE "clé" IN ('à', 'ü') ORDER BY 1"""
        assert one(ods_database, f"SELECT array_agg(c) FROM ({key}) AS k (c)") == ["à5000", "ü1"]
        assert one(ods_database, f"""SELECT "naïve" FROM {name}."où ça" WHERE "clé" = 'é2'""") == "ßé2"
        hub.command("verify", name)


def execute_utf8(dsn: str, *statements: str) -> None:
    """Statements as bytes: where the encoding is unknown, the client must not translate."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def followed(ods: str, name: str, count: int) -> bool:
    if one(ods, f"""SELECT to_regclass('{name}."où ça"') IS NOT NULL""") is not True:
        return False
    return one(ods, f"""SELECT count(*) FROM {name}."où ça" """) == count
