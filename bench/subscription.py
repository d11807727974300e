"""Changes a second into the ODS, beside PostgreSQL's own logical replication subscription of the same workload.

A table of 8 columns with 500,000 rows; of 100 changes 60 are updates, 20 inserts, 20 deletes. ``small``: transactions
of five changes; ``large``: of a thousand. ``backlog``: they are written while nobody follows, and the time counts from
then on; ``sustained``: the load runs as fast as it can while one of them follows, and the time counts until the last
change can be seen. The subscription's worker does not wait for its disk (``synchronous_commit = off``, its default).
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench.hub import configure, cpu, paused, running, wait_until
from catchment.demo.cluster import Cluster

ROWS = 500_000
TABLE = """CREATE TABLE usual (id bigint PRIMARY KEY, customer int, kind text, amount numeric(10,2), note text,
           at timestamptz, done bool, score float8)"""
_VALUES = "n % 1000, 'kind ' || (n % 7), n / 3.0, 'a note of some words', now(), n % 2 = 0, n / 7.0"
FILL = f"INSERT INTO usual SELECT n, {_VALUES} FROM generate_series(1, {ROWS}) n"

# Inserts at the end, deletes from the beginning, updates in between: each call has rows of its own.
_SCRIPT = f"""
CREATE SEQUENCE step;
CREATE PROCEDURE change(size int) LANGUAGE plpgsql AS $$
DECLARE
    place bigint := nextval('step') * size;
    updated bigint := {ROWS // 2} + 3 * place % {ROWS // 3};
BEGIN
    UPDATE usual SET score = score + 1 WHERE id > updated AND id <= updated + 3 * size;
    INSERT INTO usual SELECT n, {_VALUES} FROM generate_series({ROWS} + place, {ROWS} + place + size - 1) n;
    DELETE FROM usual WHERE id > place - size AND id <= place;
END $$;
"""


@dataclass(frozen=True)
class Load:
    """``transactions`` of five times ``size`` changes."""

    name: str
    size: int
    transactions: int
    backlog: bool

    @property
    def changes(self) -> int:
        return 5 * self.size * self.transactions


LOADS = (
    Load("small, sustained", 1, 12_000, backlog=False),
    Load("small, backlog", 1, 60_000, backlog=True),
    Load("large, backlog", 200, 1_000, backlog=True),
)


def measure() -> dict[str, float]:
    """For each load: changes a second of each side, and their ratio; of ours also the CPU of a change."""
    results: dict[str, float] = {}
    for load in LOADS:
        ours, used = _follow(load, hub=True)
        theirs, _ = _follow(load, hub=False)
        results |= {
            f"{load.name}: catchment, changes/s": load.changes / ours,
            f"{load.name}: subscription, changes/s": load.changes / theirs,
            f"{load.name}: ratio": theirs / ours,
            f"{load.name}: catchment, CPU µs per change": used / load.changes * 1e6,
        }
    return results


def _follow(load: Load, hub: bool) -> tuple[float, float]:
    """Seconds from the beginning to the last change in the ODS, and seconds of CPU of the hub or the apply worker."""
    with (
        tempfile.TemporaryDirectory() as directory,
        Cluster() as source,
        Cluster() as ods,
        psycopg.connect(ods.dsn(), autocommit=True) as reader,
    ):
        with psycopg.connect(source.dsn(), autocommit=True) as admin:
            admin.execute(TABLE)
            admin.execute(FILL)
            admin.execute(_SCRIPT)
            admin.execute("CREATE PUBLICATION catchment FOR TABLE usual")
        following: AbstractContextManager[int]
        if hub:
            following = running(configure(Path(directory), {"orders": source.dsn()}, ods.dsn()))
        else:
            reader.execute(TABLE)
            following = subscribed(source, ods.dsn())
        place = "orders.usual" if hub else "public.usual"
        with following as root:
            wait_until(lambda: _counts(reader, place, ROWS), 0.1)
            before = cpu(root)
            if load.backlog:
                with paused(root):
                    _write(source, load)
                began = time.perf_counter()
            else:
                began = time.perf_counter()
                _write(source, load)
            wait_until(lambda: _last(reader, place))
            return time.perf_counter() - began, cpu(root) - before


def _counts(reader: psycopg.Connection, place: str, rows: int) -> bool:
    ((there,),) = reader.execute("SELECT to_regclass(%s) IS NOT NULL", (place,)).fetchall()
    return bool(there) and reader.execute(f"SELECT count(*) FROM {place}").fetchone() == (rows,)


def _last(reader: psycopg.Connection, place: str) -> bool:
    return reader.execute(f"SELECT FROM {place} WHERE id = -1").fetchone() is not None


def _write(source: Cluster, load: Load) -> None:
    """All of the load, then a row that says so."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(f"CALL change({load.size});\n")
        script.flush()
        clients = 2
        options = ["-n", "-f", script.name, "-c", str(clients), "-t", str(load.transactions // clients)]
        subprocess.run([source.binaries / "pgbench", *options, source.dsn()], check=True, capture_output=True)
    with psycopg.connect(source.dsn(), autocommit=True) as connection:
        connection.execute("INSERT INTO usual (id) VALUES (-1)")


@contextmanager
def subscribed(source: Cluster, ods: str) -> Iterator[int]:
    """A subscription to the source's publication for the block, in a database that has its tables.

    Its apply worker's process id.
    """
    query = "SELECT pid FROM pg_stat_subscription WHERE relid IS NULL AND pid IS NOT NULL"
    with psycopg.connect(ods, autocommit=True) as admin:
        admin.execute(f"CREATE SUBSCRIPTION beside CONNECTION '{source.dsn()}' PUBLICATION catchment")
        try:
            wait_until(lambda: admin.execute(query).fetchone() is not None)
            ((worker,),) = admin.execute(query).fetchall()
            yield worker
        finally:
            admin.execute("DROP SUBSCRIPTION beside")
