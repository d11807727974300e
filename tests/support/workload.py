"""Traffic for sources: pgbench's own transactions, and a table with a column of nearly every type."""

from __future__ import annotations

import random
import subprocess
import threading
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

KINDS = {
    "truth": "bool",
    "small": "int2",
    "middle": "int4",
    "large": "int8",
    "single": "float4",
    "double": "float8",
    "exact": "numeric(12,3)",
    "any_exact": "numeric",
    "words": "text",
    "bounded": "varchar(40)",
    "padded": "char(8)",
    "bytes": "bytea",
    "day": "date",
    "moment": "timestamp",
    "instant": "timestamptz",
    "clock": "time",
    "while_": "interval",
    "name": "uuid",
    "json_text": "json",
    "json_value": "jsonb",
    "grid": "int4[]",
    "labels": "text[]",
    "address": "inet",
    "card": "macaddr",
    "flags": "bit(5)",
    "place": "point",
}
_WORDS = ["", "\\", "\\N", "a\tb", "line\nbreak", "\r", 'qu"ote', "naïve ☃", "NULL", "\x01\x1f", "{}", "x" * 40]


def make_tables(dsn: str) -> None:
    """The table of kinds, with a key, one without a key, and the publication of everything."""
    columns = ", ".join(f"{name} {kind}" for name, kind in KINDS.items())
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE TABLE kinds (id int8 PRIMARY KEY, big text, {})").format(sql.SQL(columns)))
        connection.execute("CREATE TABLE bag (a int4, b json, c point)")
        connection.execute("ALTER TABLE bag REPLICA IDENTITY FULL")
        connection.execute("CREATE PUBLICATION catchment FOR ALL TABLES")


KEYS = {
    "kinds": ["id"],
    "bag": [],
    "pgbench_accounts": ["aid"],
    "pgbench_branches": ["bid"],
    "pgbench_tellers": ["tid"],
    "pgbench_history": [],
}


def value(kind: str, chance: random.Random) -> Any:
    """A value as text that PostgreSQL reads for this type, the odd ones often; None for null."""
    if chance.random() < 0.15:
        return None
    number = chance.randrange(-30000, 30000)
    special = chance.random() < 0.2
    match kind:
        case "bool":
            return chance.choice(["t", "f"])
        case "int2" | "int4" | "int8":
            return str(number)
        case "float4" | "float8":
            return chance.choice(["NaN", "Infinity", "-Infinity", "-0", "1e-40"]) if special else repr(number / 7)
        case "numeric(12,3)":
            return "NaN" if special else f"{number / 8}"
        case "numeric":
            odd = ["NaN", "Infinity", "-Infinity", "1.50", "1.5", "1e60", "0.000"]
            return chance.choice(odd) if special else f"{number}.{chance.randrange(10**6)}"
        case "bytea":
            return "\\x" + chance.randbytes(chance.randrange(20)).hex()
        case "date":
            return (
                chance.choice(["infinity", "-infinity", "0044-03-15 BC"])
                if special
                else f"2026-0{chance.randrange(1, 9)}-11"
            )
        case "timestamp" | "timestamptz":
            return (
                chance.choice(["infinity", "-infinity"])
                if special
                else f"2026-11-23 05:06:07.{chance.randrange(10**6):06}"
            )
        case "time":
            return f"{chance.randrange(24):02}:59:00.{chance.randrange(1000):03}"
        case "interval":
            return f"{number} days {number} ms"
        case "uuid":
            return f"{chance.getrandbits(128):032x}"
        case "json" | "jsonb":
            return '{"b" :  [1, 2.50], "a": "\\u00e9\\n"}' if special else str(number)
        case "int4[]":
            return f"{{{{{number},NULL}},{{1,2}}}}"
        case "text[]":
            return '{"a,b","NULL",NULL,"\\"","\\\\"}'
        case "inet":
            return chance.choice(["10.1.2.3/8", "::1", "192.168.0.1"])
        case "macaddr":
            return "08:00:2b:01:02:03"
        case "bit(5)":
            return f"{chance.randrange(32):05b}"
        case "point":
            return f"({number},1.5)"
        case _:
            return chance.choice(_WORDS)[: 8 if kind == "char(8)" else 40]


class Traffic:
    """pgbench and random changes to the other tables, until stopped; a server that goes away is waited for."""

    def __init__(self, dsn: str, binaries: Path, seed: int, seconds: int) -> None:
        self._dsn = dsn
        self._chance = random.Random(seed)
        self._stop = threading.Event()
        self._pgbench = [str(binaries / "pgbench"), "-n", "-c", "2", "-R", "150", "-T", str(seconds), dsn]
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._run_pgbench, self._run_changes)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run_pgbench(self) -> None:
        while not self._stop.is_set():
            with subprocess.Popen(self._pgbench, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                while process.poll() is None and not self._stop.wait(0.1):
                    pass
                process.terminate()

    def _run_changes(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True) as connection:
                    while not self._stop.is_set():
                        change(connection, self._chance)
                        self._stop.wait(0.005)
            except psycopg.Error:
                self._stop.wait(0.2)


def change(connection: psycopg.Connection, chance: random.Random) -> None:
    """One random transaction."""
    key = chance.randrange(300)
    with connection.transaction(force_rollback=chance.random() < 0.05):
        for _ in range(chance.choice([1, 1, 2, 5])):
            match chance.choice(
                ["insert", "insert", "update", "update", "key", "swap", "delete", "bag", "unbag", "turn"]
            ):
                case "insert":
                    insert(connection, chance, chance.randrange(300))
                case "update":
                    name, kind = chance.choice(list(KINDS.items()))
                    update = sql.SQL("UPDATE kinds SET {} = %s WHERE id = %s").format(sql.Identifier(name))
                    connection.execute(update, (value(kind, chance), key))
                case "key":
                    connection.execute(
                        "UPDATE kinds SET id = %s WHERE id = %s AND NOT EXISTS (SELECT FROM kinds WHERE id = %s)",
                        (key + 1, key, key + 1),
                    )
                case "swap":
                    for old, new in ((key, -1), (key + 1, key), (-1, key + 1)):
                        connection.execute("UPDATE kinds SET id = %s WHERE id = %s", (new, old))
                case "delete":
                    connection.execute("DELETE FROM kinds WHERE id = %s", (key,))
                case "bag":
                    row = (key % 5, value("json", chance), value("point", chance))
                    connection.execute("INSERT INTO bag VALUES (%s, %s, %s), (1, '[1]', '(1,1)')", row)
                case "unbag":
                    connection.execute("DELETE FROM bag WHERE a = %s AND random() < 0.5", (key % 5,))
                    connection.execute("UPDATE bag SET a = a + 1 WHERE a = 2 AND random() < 0.5")
                case "turn" if chance.random() < 0.05:
                    connection.execute("TRUNCATE bag")


def insert(connection: psycopg.Connection, chance: random.Random, key: int) -> None:
    """A row of kinds, with a large value that TOAST stores apart now and then."""
    names = sql.SQL(", ").join(map(sql.Identifier, KINDS))
    big = "".join(chance.choices("abcdefgh", k=9000)) if chance.random() < 0.3 else "small"
    values = [key, big, *(value(kind, chance) for kind in KINDS.values())]
    places = sql.SQL(", ").join([sql.SQL("%s")] * len(values))
    statement = sql.SQL("INSERT INTO kinds (id, big, {}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET words = 'again'")
    connection.execute(statement.format(names, places), values)
