"""Milliseconds from commit to visible in the ODS at 1,000 transactions a second.

Each transaction inserts one row with the time of its insertion, before its commit; a reader looks every 2 ms:
the figures are a little too high. Source, ODS, hub, pgbench and reader share the machine.
"""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from catchment.demo.cluster import Cluster

RATE = 1000
SECONDS = 20
WARM_UP_SECONDS = 5


def measure() -> dict[str, float]:
    """Percentiles, and the rate that was reached."""
    with tempfile.TemporaryDirectory() as directory, Cluster() as source, Cluster() as ods:
        home = Path(directory)
        with psycopg.connect(source.dsn(), autocommit=True) as admin:
            admin.execute("CREATE TABLE ticks (id bigserial PRIMARY KEY, at timestamptz, note text)")
            admin.execute("CREATE PUBLICATION catchment FOR ALL TABLES")
        config = home / "catchment.toml"
        config.write_text(f'[[source]]\nname = "orders"\ndsn = "{source.dsn()}"\n[ods]\ndsn = "{ods.dsn()}"\n')
        script = home / "tick.sql"
        script.write_text("INSERT INTO ticks (at, note) VALUES (clock_timestamp(), 'a note of some words');\n")
        hub = subprocess.Popen([sys.executable, "-m", "catchment.cli.main", "run", "--config", config])
        try:
            _wait_for_table(ods.dsn())
            load = ["-n", "-f", script, "-R", str(RATE), "-c", "4", "-T", str(SECONDS)]
            pgbench = subprocess.Popen(
                [source.binaries / "pgbench", *load, source.dsn()],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            delays = _watch(ods.dsn(), pgbench)
        finally:
            hub.send_signal(signal.SIGINT)
            hub.wait()
    cuts = statistics.quantiles(delays, n=100)
    return {
        "transactions/s": len(delays) / (SECONDS - WARM_UP_SECONDS),
        "p50, ms": cuts[49],
        "p90, ms": cuts[89],
        "p99, ms": cuts[98],
        "most, ms": max(delays),
    }


def _wait_for_table(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        while connection.execute("SELECT to_regclass('orders.ticks')").fetchone() == (None,):
            time.sleep(0.1)


def _watch(dsn: str, pgbench: subprocess.Popen[bytes]) -> list[float]:
    delays: list[float] = []
    last = 0
    begins = time.time() + WARM_UP_SECONDS
    with psycopg.connect(dsn, autocommit=True) as connection:
        while pgbench.poll() is None:
            query = "SELECT id, extract(epoch FROM at)::float8 FROM orders.ticks WHERE id > %s"
            seen = connection.execute(query, (last,)).fetchall()
            now = time.time()
            delays += [(now - at) * 1000 for _, at in seen if at > begins]
            # Ids are drawn before the commits: a few may become visible later than higher ones, and are left out.
            last = max((number for number, _ in seen), default=last)
            time.sleep(0.002)
    return delays
