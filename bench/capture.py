"""Changes a second from stream to durable log, beside ``pg_recvlogical -f /dev/null`` and Debezium on the same changes.

Rows of 4, 8 and 40 columns, inserted in transactions of 1,000; of 8 columns also updated, deleted, inserted in
transactions of one, in one of 800,000, which is streamed to us before its commit, from eight databases at once, and
over TCP. The median of the rounds; all sides read what was written before, connecting included except for Debezium.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench import debezium
from catchment.demo.cluster import Cluster
from catchment.hub.memory import MemoryHub
from catchment.log.sqlite import SqliteLog
from catchment.model.lsn import Lsn
from catchment.pipeline.collector import Collector
from catchment.pipeline.session import Surroundings
from catchment.pipeline.status import LoopStatus, Stopping
from catchment.postgres.source import Source
from catchment.wire.choice import chosen

ROUNDS = 5
_LOOK_SECONDS = 0.02
_SEGMENT_BYTES = 16 * 2**20

_WIDE = [f"text_{number}" for number in range(38)]
_VALUES = [f"'value ' || (n + {number})" for number in range(38)]


@dataclass(frozen=True)
class Shape:
    """Changes of one kind. ``statement``: one transaction, in which ``i`` is its number and ``rows`` how many it
    changes; ``filled``: the table has all these rows before. ``tcp``: not over a local socket.
    """

    name: str
    table: str
    statement: str
    transactions: int
    rows: int
    filled: bool = False
    sources: int = 1
    tcp: bool = False
    beside_debezium: bool = False

    @property
    def changes(self) -> int:
        return self.transactions * self.rows * self.sources


_USUAL = """(id bigserial PRIMARY KEY, customer int, kind text, amount numeric(10,2), note text, at timestamptz,
             done bool, score float8)"""
_INSERT_USUAL = """INSERT INTO measured (customer, kind, amount, note, at, done, score)
                   SELECT n, 'kind ' || (n % 7), n / 3.0, 'a note of some words', now(), n % 2 = 0, n / 7.0
                   FROM generate_series(1, {rows}) n"""
_THEIRS = "WHERE id > (i - 1) * {rows} AND id <= i * {rows}"

SHAPES = (
    Shape(
        "narrow",
        "(id bigserial PRIMARY KEY, customer int, amount numeric(10,2), at timestamptz)",
        "INSERT INTO measured (customer, amount, at) SELECT n, n / 3.0, now() FROM generate_series(1, {rows}) n",
        800,
        1000,
    ),
    Shape("usual", _USUAL, _INSERT_USUAL, 800, 1000, beside_debezium=True),
    Shape("usual over TCP", _USUAL, _INSERT_USUAL, 800, 1000, tcp=True),
    Shape(
        "wide",
        f"(id bigserial PRIMARY KEY, at timestamptz, {', '.join(f'{name} text' for name in _WIDE)})",
        f"INSERT INTO measured (at, {', '.join(_WIDE)}) SELECT now(), {', '.join(_VALUES)}"
        " FROM generate_series(1, {rows}) n",
        400,
        1000,
    ),
    Shape("updates", _USUAL, f"UPDATE measured SET score = score + 1 {_THEIRS}", 600, 1000, filled=True),
    Shape("deletes", _USUAL, f"DELETE FROM measured {_THEIRS}", 800, 1000, filled=True),
    Shape("single", _USUAL, _INSERT_USUAL, 120_000, 1),
    Shape("large", _USUAL, _INSERT_USUAL, 1, 800_000),
    Shape("eight", _USUAL, _INSERT_USUAL, 400, 1000, sources=8),
)

Side = Callable[[Lsn], tuple[float, float]]
"""Reads up to this position, which all databases of the server share; seconds, and seconds of CPU."""


def measure() -> dict[str, float]:
    """For each shape: changes a second for each side, ratios to the others', and our CPU a change."""
    results: dict[str, float] = {"native": chosen() == "native"}
    if why := debezium.missing():
        print(f"  {why}")
    for shape in SHAPES:
        took = _measure(shape, beside_debezium=shape.beside_debezium and why is None)
        seconds = {side: [each[0] for each in rounds] for side, rounds in took.items()}
        used = statistics.median(each[1] for each in took["catchment"])
        for side, rounds in seconds.items():
            results[f"{shape.name}: {side}, changes/s"] = shape.changes / statistics.median(rounds)
        results[f"{shape.name}: ratio"] = _ratio(seconds["pg_recvlogical"], seconds["catchment"])
        results[f"{shape.name}: catchment, CPU µs per change"] = used / shape.changes * 1e6
        if "debezium" in took:
            theirs = statistics.median(each[1] for each in took["debezium"])
            results[f"{shape.name}: debezium, CPU µs per change"] = theirs / shape.changes * 1e6
            results[f"{shape.name}: times debezium's rate"] = _ratio(seconds["debezium"], seconds["catchment"])
            results[f"{shape.name}: times less CPU than debezium"] = theirs / used
    return results


def _ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    return statistics.median(their / our for their, our in zip(theirs, ours, strict=True))


def _measure(shape: Shape, beside_debezium: bool) -> dict[str, list[tuple[float, float]]]:
    settings = {"listen_addresses": "127.0.0.1", "max_replication_slots": 30, "max_wal_senders": 30}
    with tempfile.TemporaryDirectory() as directory, Cluster(settings=settings) as server:
        databases = ["postgres", *(f"other_{number}" for number in range(1, shape.sources))]
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            for name in databases[1:]:
                admin.execute(f"CREATE DATABASE {name}")
        dsns = [server.dsn(name) + (" host=127.0.0.1" if shape.tcp else "") for name in databases]
        for number, dsn in enumerate(dsns):
            with psycopg.connect(dsn, autocommit=True) as admin:
                admin.execute(f"CREATE TABLE measured {shape.table}")
                admin.execute("CREATE PUBLICATION catchment FOR ALL TABLES")
                admin.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (f"beside_{number}",))
        log = SqliteLog(Path(directory))
        sides: dict[str, Side] = {
            "catchment": lambda until: _collect(dsns, log, Path(directory), until),
            "pg_recvlogical": lambda until: _receive(server, dsns, until),
        }
        sides["catchment"](Lsn(1))
        beside = list(sides.values())
        if beside_debezium:
            debezium.prepare(server)
            sides["debezium"] = lambda _: debezium.capture(server, shape.changes)
        took: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
        for _ in range(ROUNDS):
            # A slot begins to decode where a checkpoint was that it has passed: else each side would, before anything
            # is sent to it, decode once more what was written up to half a minute ago.
            for statements in (_filling(shape), "NULL", "NULL"):
                before = max(_write(dsn, shape, statements) for dsn in dsns)
                with psycopg.connect(server.dsn(), autocommit=True) as admin:
                    admin.execute("CHECKPOINT")
            for side in beside:
                side(before)
            statements = (
                f"FOR i IN 1..{shape.transactions} LOOP {shape.statement.format(rows=shape.rows)}; COMMIT; END LOOP"
            )
            until = max(_write(dsn, shape, statements) for dsn in dsns)
            for side in random.sample(list(sides), len(sides)):
                took[side].append(sides[side](until))
        log.close()
    return took


def _filling(shape: Shape) -> str:
    rows = shape.transactions * shape.rows
    filling = f"TRUNCATE measured RESTART IDENTITY; COMMIT; {_INSERT_USUAL.format(rows=rows)}; COMMIT"
    return filling if shape.filled else "NULL"


def _write(dsn: str, shape: Shape, statements: str) -> Lsn:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(f"DO $$ BEGIN {statements}; END $$")
        ((until,),) = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchall()
        # Flushed with a commit that writes: else the first side would wait for the server's WAL writer.
        connection.execute("SET synchronous_commit = on; SELECT pg_logical_emit_message(true, '', '')")
    return Lsn.parse(until).before_page_header(_SEGMENT_BYTES)


def _receive(server: Cluster, dsns: Sequence[str], until: Lsn) -> tuple[float, float]:
    options = ["--start", "-o", "proto_version=1", "-o", "publication_names=catchment", "--no-loop", "-f", "/dev/null"]
    began = time.perf_counter()
    receiving = [
        subprocess.Popen(
            [
                server.binaries / "pg_recvlogical",
                "-d",
                dsn,
                "--slot",
                f"beside_{number}",
                "--endpos",
                str(until),
                *options,
            ],
            stderr=subprocess.DEVNULL,
        )
        for number, dsn in enumerate(dsns)
    ]
    for each in receiving:
        if each.wait():
            raise RuntimeError("pg_recvlogical failed")
    return time.perf_counter() - began, 0.0


def _collect(dsns: Sequence[str], log: SqliteLog, held: Path, until: Lsn) -> tuple[float, float]:
    """Run collectors, their connecting included, until they have acknowledged so much: that is durable in the log."""
    began, used = time.perf_counter(), time.process_time()
    stopping = Stopping()
    collecting = []
    for number, dsn in enumerate(dsns):
        source = Source(f"source_{number}", dsn, slot=f"catchment_{number}")
        around = Surroundings(source, (), log, MemoryHub(), "bench", held / f"held_{number}", LoopStatus(source.name))
        collecting.append(threading.Thread(target=Collector(around, stopping).run))
        collecting[-1].start()
    reached = f"""SELECT count(*) FROM pg_replication_slots
                  WHERE starts_with(slot_name, 'catchment') AND confirmed_flush_lsn >= '{until}'"""
    with psycopg.connect(dsns[0], autocommit=True) as connection:  # it looks itself, or our looking would be measured
        look = f"PERFORM pg_sleep({_LOOK_SECONDS})"
        connection.execute(f"DO $$ BEGIN WHILE ({reached}) < {len(dsns)} LOOP {look}; END LOOP; END $$")
    took = time.perf_counter() - began  # what follows makes nothing durable: the log's files are closed
    stopping.now()
    for thread in collecting:
        thread.join()
    return took, time.process_time() - used
