"""Most memory (MB, the sum of PSS over the hub's processes) while one transaction of 20 million rows goes through.

The hub runs beside the source from before the transaction until the ODS shows all of it. Every half second the
proportional set sizes of the supervisor and its descendants are added up. Beside it: the hub at rest before, and what
is on the disk in the end.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import psycopg

from bench.hub import configure, memory, running, stored, wait_until
from catchment.demo.cluster import Cluster

ROWS = 20_000_000
_LOOK_SECONDS = 0.5


def measure() -> dict[str, float]:
    """Megabytes at rest and at most, and how long the transaction took to write and to arrive."""
    with tempfile.TemporaryDirectory() as directory, Cluster() as source, Cluster() as ods:
        with psycopg.connect(source.dsn(), autocommit=True) as admin:
            admin.execute("CREATE TABLE large (id bigint PRIMARY KEY, kind text, note text)")
            admin.execute("CREATE PUBLICATION catchment FOR ALL TABLES")
        config = configure(Path(directory), {"orders": source.dsn()}, ods.dsn())
        with running(config) as hub, psycopg.connect(ods.dsn(), autocommit=True) as reader:
            wait_until(
                lambda: reader.execute("SELECT to_regclass('orders.large')").fetchone() != (None,), _LOOK_SECONDS
            )
            at_rest = most = memory(hub)
            began = time.perf_counter()
            with psycopg.connect(source.dsn()) as writer:
                writer.execute(
                    "INSERT INTO large SELECT n, 'kind ' || mod(n, 7), 'a note of some words ' || n"
                    " FROM generate_series(1, %s) n",
                    (ROWS,),
                )
            written = time.perf_counter() - began
            # The first rows that can be seen are all of them.
            while reader.execute("SELECT FROM orders.large LIMIT 1").fetchone() is None:
                most = max(most, memory(hub))
                time.sleep(_LOOK_SECONDS)
            arrived = time.perf_counter() - began
            sizes = "SELECT count(*), pg_total_relation_size('orders.large') / 1e6::float8 FROM orders.large"
            ((rows, table),) = reader.execute(sizes).fetchall()
            log = stored(Path(directory) / "var" / "log")
    return {
        "at rest, MB": at_rest,
        "at most, MB": most,
        "rows in the ODS": rows,
        "the log's files, MB": log,
        "the table in the ODS with its index, MB": table,
        "seconds until it was written": written,
        "seconds until it had arrived": arrived,
    }
