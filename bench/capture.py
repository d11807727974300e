"""Changes a second from stream to durable log, beside ``pg_recvlogical -f /dev/null`` on the same changes.

Rows of 8 columns, inserted in transactions of 1,000; the median of the rounds. Both sides read what was written before.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
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

ROUNDS = 3
TRANSACTIONS = 400
ROWS = 1000
TABLE = """CREATE TABLE usual (id bigserial PRIMARY KEY, customer int, kind text, amount numeric(10,2), note text,
           at timestamptz, done bool, score float8)"""
INSERT = f"""INSERT INTO usual (customer, kind, amount, note, at, done, score)
             SELECT n, 'kind ' || (n % 7), n / 3.0, 'a note of some words', now(), n % 2 = 0, n / 7.0
             FROM generate_series(1, {ROWS}) n"""


def measure() -> dict[str, float]:
    """Changes a second and CPU for each side, and their ratio."""
    ours: list[float] = []
    theirs: list[float] = []
    seconds_of_cpu: list[float] = []
    changes = TRANSACTIONS * ROWS
    with tempfile.TemporaryDirectory() as directory, Cluster() as server:
        dsn = server.dsn()
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(TABLE)
            admin.execute("CREATE PUBLICATION catchment FOR ALL TABLES")
            admin.execute("SELECT pg_create_logical_replication_slot('beside', 'pgoutput')")
        log = SqliteLog(Path(directory))
        _collect(dsn, log, Path(directory), lambda: _end(log) > 0)
        for number in range(ROUNDS):
            until = _write(dsn)
            both: list[Callable[[], None]] = [
                lambda until=until: theirs.append(changes / _recvlogical(server, dsn, until)),  # type: ignore[misc]
                lambda until=until: _ours(dsn, log, Path(directory), until, changes, ours, seconds_of_cpu),  # type: ignore[misc]
            ]
            for side in both if number % 2 else reversed(both):
                side()
        log.close()
    rate, beside = statistics.median(ours), statistics.median(theirs)
    return {
        "catchment, changes/s": rate,
        "pg_recvlogical, changes/s": beside,
        "ratio": rate / beside,
        "catchment, CPU µs per change": statistics.median(seconds_of_cpu) / changes * 1e6,
    }


def _write(dsn: str) -> Lsn:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(TRANSACTIONS):
            connection.execute(INSERT)
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


def _ours(dsn: str, log: SqliteLog, held: Path, until: Lsn, changes: int, rates: list[float], cpu: list[float]) -> None:
    began, used = time.perf_counter(), time.process_time()
    _collect(dsn, log, held, lambda: _end(log) >= until)
    rates.append(changes / (time.perf_counter() - began))
    cpu.append(time.process_time() - used)


def _end(log: SqliteLog) -> int:
    span = log.wait("orders", 0, 0)
    frontiers = [frontier for frontier, _ in log.read("orders", span.last - 1, span.last)] if span.last else []
    return frontiers[-1].lsn if frontiers else 0


def _collect(dsn: str, log: SqliteLog, held: Path, enough: Callable[[], bool]) -> None:
    """Run a collector, its connecting included, until it has enough."""
    stopping = Stopping()
    source = Source("orders", dsn, slot="catchment_orders")
    around = Surroundings(source, (), log, MemoryHub(), "bench", held / "held", LoopStatus("orders"))
    thread = threading.Thread(target=Collector(around, stopping).run)
    thread.start()
    while not enough():
        time.sleep(0.01)
    stopping.now()
    thread.join()
