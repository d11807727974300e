"""Changes a second from stream to durable log, beside ``pg_recvlogical -f /dev/null`` on the same changes.

Rows of 4, 8 and 40 columns, inserted in transactions of 1,000; of 8 columns also in transactions of one, and in one of
400,000, which is streamed to us before its commit. The median of the rounds; both sides read what was written before.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from catchment.demo.cluster import Cluster
from catchment.hub.memory import MemoryHub
from catchment.log.sqlite import SqliteLog
from catchment.model.lsn import Lsn
from catchment.pipeline.collector import Collector
from catchment.pipeline.session import Surroundings
from catchment.pipeline.status import LoopStatus, Stopping
from catchment.postgres.source import Source
from catchment.wire.choice import chosen

ROUNDS = 3
_LOOK_SECONDS = 0.02

_WIDE = [f"text_{number}" for number in range(38)]
_VALUES = [f"'value ' || (n + {number})" for number in range(38)]


@dataclass(frozen=True)
class Shape:
    """Rows of one kind, and how they are written: ``insert`` takes the number of rows."""

    name: str
    table: str
    insert: str
    transactions: int
    rows: int


_USUAL = """(id bigserial PRIMARY KEY, customer int, kind text, amount numeric(10,2), note text, at timestamptz,
             done bool, score float8)"""
_INSERT_USUAL = """(customer, kind, amount, note, at, done, score)
                   SELECT n, 'kind ' || (n % 7), n / 3.0, 'a note of some words', now(), n % 2 = 0, n / 7.0"""

SHAPES = (
    Shape(
        "narrow",
        "(id bigserial PRIMARY KEY, customer int, amount numeric(10,2), at timestamptz)",
        "(customer, amount, at) SELECT n, n / 3.0, now()",
        400,
        1000,
    ),
    Shape("usual", _USUAL, _INSERT_USUAL, 400, 1000),
    Shape(
        "wide",
        f"(id bigserial PRIMARY KEY, at timestamptz, {', '.join(f'{name} text' for name in _WIDE)})",
        f"(at, {', '.join(_WIDE)}) SELECT now(), {', '.join(_VALUES)}",
        100,
        1000,
    ),
    Shape("single", _USUAL, _INSERT_USUAL, 60_000, 1),
    Shape("large", _USUAL, _INSERT_USUAL, 1, 400_000),
)


@dataclass
class Rounds:
    """Seconds that each side took for the same changes, and of our CPU."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def measure() -> dict[str, float]:
    """For each shape: changes a second for each side, their ratio, and our CPU a change."""
    results: dict[str, float] = {"native": chosen() == "native"}
    for shape in SHAPES:
        rounds = _measure(shape)
        changes = shape.transactions * shape.rows
        ours, theirs = statistics.median(rounds.ours), statistics.median(rounds.theirs)
        results |= {
            f"{shape.name}: catchment, changes/s": changes / ours,
            f"{shape.name}: pg_recvlogical, changes/s": changes / theirs,
            f"{shape.name}: ratio": statistics.median(map(_ratio, rounds.theirs, rounds.ours)),
            f"{shape.name}: catchment, CPU µs per change": statistics.median(rounds.cpu) / changes * 1e6,
        }
    return results


def _ratio(theirs: float, ours: float) -> float:
    return theirs / ours


def _measure(shape: Shape) -> Rounds:
    rounds = Rounds()
    with tempfile.TemporaryDirectory() as directory, Cluster() as server:
        dsn = server.dsn()
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(f"CREATE TABLE measured {shape.table}")
            admin.execute("CREATE PUBLICATION catchment FOR ALL TABLES")
            admin.execute("SELECT pg_create_logical_replication_slot('beside', 'pgoutput')")
        log = SqliteLog(Path(directory))
        _collect(dsn, log, Path(directory), Lsn(1))
        for number in range(ROUNDS):
            until = _write(dsn, shape)
            both: list[Callable[[], None]] = [
                lambda until=until: rounds.theirs.append(_recvlogical(server, dsn, until)),  # type: ignore[misc]
                lambda until=until: _ours(dsn, log, Path(directory), until, rounds),  # type: ignore[misc]
            ]
            for side in both if number % 2 else reversed(both):
                side()
        log.close()
    return rounds


def _write(dsn: str, shape: Shape) -> Lsn:
    insert = f"INSERT INTO measured {shape.insert} FROM generate_series(1, {shape.rows}) n;"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(f"DO $$ BEGIN FOR _ IN 1..{shape.transactions} LOOP {insert} COMMIT; END LOOP; END $$")
        connection.execute("SET synchronous_commit = on; SELECT pg_current_xact_id()")
        ((until,),) = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchall()
    return Lsn.parse(until)


def _recvlogical(server: Cluster, dsn: str, until: Lsn) -> float:
    options = ["-o", "proto_version=1", "-o", "publication_names=catchment"]
    options += ["--endpos", str(until), "--no-loop", "-f", "/dev/null"]
    began = time.perf_counter()
    subprocess.run(
        [server.binaries / "pg_recvlogical", "-d", dsn, "--slot", "beside", "--start", *options],
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - began


def _ours(dsn: str, log: SqliteLog, held: Path, until: Lsn, rounds: Rounds) -> None:
    began, used = time.perf_counter(), time.process_time()
    _collect(dsn, log, held, until)
    rounds.ours.append(time.perf_counter() - began)
    rounds.cpu.append(time.process_time() - used)


def _collect(dsn: str, log: SqliteLog, held: Path, until: Lsn) -> None:
    """Run a collector, its connecting included, until it has acknowledged so much: that is durable in the log."""
    stopping = Stopping()
    source = Source("orders", dsn, slot="catchment_orders")
    around = Surroundings(source, (), log, MemoryHub(), "bench", held / "held", LoopStatus("orders"))
    thread = threading.Thread(target=Collector(around, stopping).run)
    thread.start()
    query = (
        "SELECT FROM pg_replication_slots WHERE slot_name = 'catchment_orders' AND confirmed_flush_lsn >= %s::pg_lsn"
    )
    with psycopg.connect(dsn, autocommit=True) as connection:
        while connection.execute(query, (str(until),)).fetchone() is None:
            time.sleep(_LOOK_SECONDS)
    stopping.now()
    thread.join()
