"""A first load of 10 million rows while pgbench changes them as fast as it can and the hub is killed three times.

Beside ``COPY … TO STDOUT`` of the same table under the same load. Meanwhile the source's sessions are looked at for how
long one of ours holds a snapshot, and so vacuum; in the end both tables are compared, by the hashes of all their rows.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench.backfill import copy_out, seconds
from bench.hub import command, configure, descendants, running
from catchment.demo.cluster import Cluster

SCALE = 100  # times 100,000 rows
KILLED_AT = (0.2, 0.45, 0.7)  # of the rows
_TABLE = "pgbench_accounts"
_LOOK_SECONDS = 0.2
_ASK_SECONDS = 1.0  # `status` starts a process
_WITHIN_SECONDS = 1800
_SUM = "SELECT count(*), sum(hashtextextended(t::text, 0)::numeric) FROM {} t"


def measure() -> dict[str, float]:
    """The rate beside COPY, rows read again after the kills, and the longest snapshot."""
    with tempfile.TemporaryDirectory() as directory, Cluster() as source, Cluster() as ods:
        fill = [source.binaries / "pgbench", "-i", "-q", "-s", str(SCALE), source.dsn()]
        subprocess.run(fill, check=True, capture_output=True)
        rows = SCALE * 100_000
        with psycopg.connect(source.dsn(), autocommit=True) as admin:
            admin.execute("CREATE PUBLICATION catchment FOR ALL TABLES")
        config = configure(Path(directory), {"orders": source.dsn()}, ods.dsn())
        with _at_full_speed(source) as transactions:
            copy = seconds(lambda: copy_out(source, f"COPY {_TABLE} TO STDOUT"))
            with _snapshots(source) as longest:
                began = time.perf_counter()
                again = _load(config, ods, rows)
                took = time.perf_counter() - began
        subprocess.run(command(config, "--until-caught-up"), check=True, capture_output=True)
        with psycopg.connect(source.dsn()) as of_source, psycopg.connect(ods.dsn()) as of_ods:
            sums = [
                connection.execute(_SUM.format(table)).fetchone()
                for connection, table in ((of_source, _TABLE), (of_ods, f"orders.{_TABLE}"))
            ]
        if sums[0] != sums[1]:
            raise RuntimeError("the ODS is not equal to the source")
    return {
        "rows": rows,
        "COPY TO STDOUT beside pgbench, rows/s": rows / copy,
        "catchment into the ODS beside pgbench, kills included, rows/s": rows / took,
        "ratio": copy / took,
        "kills": len(KILLED_AT),
        "rows read again": again,
        "longest snapshot, s": longest[0],
        "pgbench, transactions meanwhile": transactions[0],
    }


@contextmanager
def _at_full_speed(source: Cluster) -> Iterator[list[int]]:
    """pgbench's own transactions, two at a time, for the block; how many there were, after it."""
    done = [0]
    options = ["-n", "-c", "2", "-T", str(_WITHIN_SECONDS * 2), source.dsn()]
    with subprocess.Popen(
        [source.binaries / "pgbench", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as pgbench:
        try:
            yield done
        finally:
            pgbench.terminate()
    with psycopg.connect(source.dsn()) as connection:
        ((done[0],),) = connection.execute("SELECT count(*) FROM pgbench_history").fetchall()


@contextmanager
def _snapshots(source: Cluster) -> Iterator[list[float]]:
    """The seconds for which one session of the hub held back vacuum, at most; looked at all the time."""
    longest = [0.0]
    over = threading.Event()
    held = """SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8
              FROM pg_stat_activity
              WHERE application_name = 'catchment' AND backend_xmin IS NOT NULL AND backend_type = 'client backend'"""

    def look() -> None:
        with psycopg.connect(source.dsn(), autocommit=True) as connection:
            while not over.wait(_LOOK_SECONDS):
                ((seconds,),) = connection.execute(held).fetchall()
                longest[0] = max(longest[0], seconds)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield longest
    finally:
        over.set()
        looking.join()


def _load(config: Path, ods: Cluster, rows: int) -> int:
    """Until readers of the ODS have the table; returns how many rows the kills had read once more."""
    again = read = 0
    kills = [share * rows for share in KILLED_AT]
    deadline = time.monotonic() + _WITHIN_SECONDS
    with running(config) as hub, psycopg.connect(ods.dsn(), autocommit=True) as reader:
        while reader.execute(f"SELECT to_regclass('orders.{_TABLE}')").fetchone() == (None,):
            if time.monotonic() > deadline:
                raise RuntimeError("the first load takes too long")
            before, read = read, _read(config) or read
            again += max(0, before - read)
            if kills and read > kills[0]:
                del kills[0]
                for pid in list(descendants(hub)):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_ASK_SECONDS)
    if kills:
        raise RuntimeError("it was read too fast to be killed as often as it should be")
    return again


def _read(config: Path) -> int | None:
    """Rows of the backfill under way; null where status knows of none."""
    shown = subprocess.run(command(config, "--json", name="status"), capture_output=True, check=False)
    refills = [refill for source in json.loads(shown.stdout)["sources"] for refill in source["refills"]]
    return refills[0]["rows"] if refills else None
