"""Milliseconds from commit to visible in the ODS at fixed rates, beside PostgreSQL's own subscription.

Each transaction inserts one row with the time of its insertion, before its commit; a reader looks every 2 ms:
the figures are a little too high. Source, ODS, hub, pgbench and reader share the machine.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench.hub import configure, running, wait_until
from bench.subscription import subscribed
from catchment.demo.cluster import Cluster

RATES = (10, 100, 1000)
SECONDS = 20
WARM_UP_SECONDS = 5
_TABLE = "CREATE TABLE ticks (id bigserial PRIMARY KEY, at timestamptz, note text)"
_TICK = "INSERT INTO ticks (at, note) VALUES (clock_timestamp(), 'a note of some words');\n"


def measure() -> dict[str, float]:
    """Percentiles for each side and rate, and the rate that was reached."""
    results: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory() as directory,
        Cluster() as source,
        Cluster() as ods,
    ):
        with psycopg.connect(source.dsn(), autocommit=True) as admin:
            admin.execute(_TABLE)
            admin.execute("CREATE PUBLICATION catchment FOR ALL TABLES")
        for side, following in (("catchment", _hub(Path(directory), source, ods)), ("subscription", _own(source, ods))):
            with following as table:
                for rate in RATES:
                    results |= {f"{side} at {rate}/s: {what}": value for what, value in _at(rate, source, ods, table)}
    return results


@contextmanager
def _hub(directory: Path, source: Cluster, ods: Cluster) -> Iterator[str]:
    with (
        running(configure(directory, {"orders": source.dsn()}, ods.dsn())),
        psycopg.connect(ods.dsn(), autocommit=True) as reader,
    ):
        wait_until(lambda: reader.execute("SELECT to_regclass('orders.ticks')").fetchone() != (None,))
        yield "orders.ticks"


@contextmanager
def _own(source: Cluster, ods: Cluster) -> Iterator[str]:
    with psycopg.connect(ods.dsn(), autocommit=True) as admin:
        admin.execute(_TABLE)
    with subscribed(source, ods.dsn()):
        yield "public.ticks"


def _at(rate: int, source: Cluster, ods: Cluster, table: str) -> Iterator[tuple[str, float]]:
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(_TICK)
        script.flush()
        load = ["-n", "-f", script.name, "-R", str(rate), "-c", "4", "-T", str(SECONDS)]
        pgbench = [source.binaries / "pgbench", *load, source.dsn()]
        with subprocess.Popen(pgbench, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as ticking:
            delays = _watch(ods.dsn(), table, ticking)
    cuts = statistics.quantiles(delays, n=100)
    yield "transactions/s", len(delays) / (SECONDS - WARM_UP_SECONDS)
    yield "p50, ms", cuts[49]
    yield "p90, ms", cuts[89]
    yield "p99, ms", cuts[98]


def _watch(dsn: str, table: str, ticking: subprocess.Popen[bytes]) -> list[float]:
    delays: list[float] = []
    begins = time.time() + WARM_UP_SECONDS
    with psycopg.connect(dsn, autocommit=True) as connection:
        ((last,),) = connection.execute(f"SELECT coalesce(max(id), 0) FROM {table}").fetchall()
        query = f"SELECT id, extract(epoch FROM at)::float8 FROM {table} WHERE id > %s"
        while ticking.poll() is None:
            seen = connection.execute(query, (last,)).fetchall()
            now = time.time()
            delays += [(now - at) * 1000 for _, at in seen if at > begins]
            # Ids are drawn before the commits: a few may become visible later than higher ones, and are left out.
            last = max((number for number, _ in seen), default=last)
            time.sleep(0.002)
    return delays
