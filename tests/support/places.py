"""A small source for tests that look at one thing: a table of places."""

from __future__ import annotations

import psycopg
import pytest

from catchment.model.lsn import Lsn

KEYS = {"places": ["id"]}


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def one(dsn: str, query: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    return row[0] if row else None


def need_extension(dsn: str, name: str) -> None:
    """Skip the test where this server comes without it: not every wheel of PostgreSQL has those of contrib."""
    if one(dsn, f"SELECT count(*) FROM pg_available_extensions WHERE name = '{name}'") == 0:
        pytest.skip(f"this PostgreSQL has no {name}")


def make_places(dsn: str) -> None:
    execute(
        dsn,
        "CREATE TABLE places (id int PRIMARY KEY, name text)",
        "INSERT INTO places SELECT n, 'place ' || n FROM generate_series(1, 1000) n",
        "CREATE PUBLICATION catchment FOR ALL TABLES",
    )


def confirmed(dsn: str, slot: str) -> Lsn:
    return Lsn.parse(str(one(dsn, f"SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{slot}'")))


def has_rows(dsn: str, table: str, count: int) -> bool:
    if one(dsn, f"SELECT to_regclass('{table}') IS NOT NULL") is not True:
        return False
    return one(dsn, f"SELECT count(*) FROM {table}") == count
