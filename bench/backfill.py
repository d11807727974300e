"""Rows a second of a first load, into the log and into the ODS, beside ``COPY … TO STDOUT`` and ``COPY`` into a table.

One table of 8 columns, read by two readers, beside one and two plain streams of the same table; then the whole of it
from ``catchment run`` until all is in the ODS, beside ``COPY … TO STDOUT`` piped into ``COPY … FROM STDIN`` and beside
``pg_dump | psql``.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg

from bench.hub import command, configure, stored
from catchment.demo.cluster import Cluster
from catchment.hub.memory import MemoryHub
from catchment.log.sqlite import SqliteLog
from catchment.pipeline.collector import Collector
from catchment.pipeline.session import Surroundings
from catchment.pipeline.status import LoopStatus, Stopping
from catchment.postgres.source import Source

ROWS = 3_000_000
TABLE = """CREATE TABLE usual (id bigint PRIMARY KEY, customer int, kind text, amount numeric(10,2), note text,
           at timestamptz, done bool, score float8)"""
FILL = f"""INSERT INTO usual SELECT n, n % 1000, 'kind ' || (n % 7), n / 3.0, 'a note of some words', now(),
           n % 2 = 0, n / 7.0 FROM generate_series(1, {ROWS}) n"""


def measure() -> dict[str, float]:
    """Rows a second of each, and their ratios."""
    with tempfile.TemporaryDirectory() as directory, Cluster() as source, Cluster() as ods:
        with psycopg.connect(source.dsn(), autocommit=True) as admin:
            admin.execute(TABLE)
            admin.execute(FILL)
            admin.execute("VACUUM (FREEZE, ANALYZE) usual")
            admin.execute("CREATE PUBLICATION catchment FOR ALL TABLES")
            ((blocks,),) = admin.execute("SELECT pg_relation_size('usual') / 8192").fetchall()
        with psycopg.connect(ods.dsn(), autocommit=True) as admin:
            admin.execute(TABLE)
        halves = [
            f"COPY (SELECT * FROM usual WHERE ctid >= '({begin},0)' AND ctid < '({end},0)') TO STDOUT"
            for begin, end in ((0, blocks // 2), (blocks // 2, blocks))
        ]
        one = ROWS / seconds(lambda: copy_out(source, "COPY usual TO STDOUT"))
        two = ROWS / seconds(lambda: copy_out(source, *halves))
        into_log, cpu = _into_log(Path(directory) / "log", source.dsn())
        log = ROWS / into_log
        through = ROWS / seconds(lambda: _copy_through(source, ods))
        dump = ROWS / seconds(lambda: _dump_through(source, ods))
        config = configure(Path(directory), {"orders": source.dsn()}, ods.dsn())
        loading = command(config, "--until-caught-up")  # its start and its end included
        whole = ROWS / seconds(lambda: subprocess.run(loading, check=True, capture_output=True))
        log_size = stored(Path(directory) / "var" / "log")
    return {
        "COPY TO STDOUT, one stream, rows/s": one,
        "COPY TO STDOUT, two streams, rows/s": two,
        "catchment into the log, rows/s": log,
        "ratio of one stream": log / one,
        "rows into the log for a second of CPU": ROWS / cpu,
        "COPY | COPY into a table with a key, rows/s": through,
        "pg_dump | psql, rows/s": dump,
        "catchment into the ODS, rows/s": whole,
        "ratio of COPY | COPY": whole / through,
        "ratio of pg_dump | psql": whole / dump,
        "the log's files, bytes a row": log_size * 1e6 / ROWS,
    }


def seconds(act: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def copy_out(source: Cluster, *statements: str) -> None:
    """Send what these ``COPY … TO STDOUT`` say, all at once, to nobody, by PostgreSQL's own client."""
    copying = [
        subprocess.Popen([*_psql(source), "-d", source.dsn(), "-c", statement], stdout=subprocess.DEVNULL)
        for statement in statements
    ]
    for each in copying:
        if each.wait():
            raise RuntimeError("COPY failed")


def _copy_through(source: Cluster, ods: Cluster) -> None:
    out = [*_psql(source), "-d", source.dsn(), "-c", "COPY usual TO STDOUT"]
    into = [*_psql(ods), "-d", ods.dsn(), "-c", "COPY usual FROM STDIN"]
    with subprocess.Popen(out, stdout=subprocess.PIPE) as copying:
        subprocess.run(into, check=True, stdin=copying.stdout)


def _psql(server: Cluster) -> list[str | Path]:
    return [server.binaries / "psql", "--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1"]


def _dump_through(source: Cluster, ods: Cluster) -> None:
    """Into another database, table and key included."""
    with psycopg.connect(ods.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE dumped")
    dump = [source.binaries / "pg_dump", "--table", "usual", "--no-owner", "--no-publications", "-d", source.dsn()]
    restore = [*_psql(ods), "-d", ods.dsn("dumped")]
    with subprocess.Popen(dump, stdout=subprocess.PIPE) as dumping:
        subprocess.run(restore, check=True, stdin=dumping.stdout, stdout=subprocess.DEVNULL)


def _into_log(directory: Path, dsn: str) -> tuple[float, float]:
    """Seconds, and seconds of CPU, until the log has the whole table, connecting included."""
    stopping = Stopping()
    source = Source("orders", dsn, slot="into_log", readers=2)
    with closing(SqliteLog(directory)) as log:
        around = Surroundings(source, ("bench",), log, MemoryHub(), "bench", directory / "held", LoopStatus("orders"))
        collector = Collector(around, stopping)
        thread = threading.Thread(target=collector.run)
        began, used = time.perf_counter(), time.process_time()
        thread.start()
        while collector.settled is None:
            time.sleep(0.01)
        took = time.perf_counter() - began, time.process_time() - used
        stopping.now()
        thread.join()
    return took
