"""Most memory (MB, the sum of PSS over the hub's processes) while one transaction of 20 million rows goes through.

The hub runs beside the source from before the transaction until the ODS shows all of it. Every half second the
proportional set sizes of the supervisor and its descendants are added up. Beside it: the hub at rest before.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg

from catchment.demo.cluster import Cluster

ROWS = 20_000_000
_LOOK_SECONDS = 0.5


def measure() -> dict[str, float]:
    """Megabytes at rest and at most, and how long the transaction took to write and to arrive."""
    with tempfile.TemporaryDirectory() as directory, Cluster() as source, Cluster() as ods:
        with psycopg.connect(source.dsn(), autocommit=True) as admin:
            admin.execute("CREATE TABLE large (id bigint PRIMARY KEY, kind text, note text)")
            admin.execute("CREATE PUBLICATION catchment FOR ALL TABLES")
        config = Path(directory) / "catchment.toml"
        config.write_text(f'[[source]]\nname = "orders"\ndsn = "{source.dsn()}"\n[ods]\ndsn = "{ods.dsn()}"\n')
        hub = subprocess.Popen(
            [sys.executable, "-m", "catchment.cli.main", "run", "--config", config],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with psycopg.connect(ods.dsn(), autocommit=True) as reader:
                while reader.execute("SELECT to_regclass('orders.large')").fetchone() == (None,):
                    time.sleep(_LOOK_SECONDS)
                at_rest = memory(hub.pid)
                began = time.perf_counter()
                with psycopg.connect(source.dsn()) as writer:
                    writer.execute(
                        "INSERT INTO large SELECT n, 'kind ' || mod(n, 7), 'a note of some words ' || n"
                        " FROM generate_series(1, %s) n",
                        (ROWS,),
                    )
                written = time.perf_counter() - began
                most = at_rest
                # The first rows that can be seen are all of them.
                while reader.execute("SELECT FROM orders.large LIMIT 1").fetchone() is None:
                    most = max(most, memory(hub.pid))
                    time.sleep(_LOOK_SECONDS)
                arrived = time.perf_counter() - began
                ((rows,),) = reader.execute("SELECT count(*) FROM orders.large").fetchall()
        finally:
            hub.send_signal(signal.SIGINT)
            hub.wait()
    return {
        "at rest, MB": at_rest,
        "at most, MB": most,
        "rows in the ODS": rows,
        "seconds until it was written": written,
        "seconds until it had arrived": arrived,
    }


def memory(root: int) -> float:
    """Megabytes of this process and its descendants, what they share counted once."""
    total = 0
    for pid in [root, *descendants(root)]:
        with suppress(OSError):  # it has just ended
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1000


def descendants(pid: int) -> Iterator[int]:
    """The process ids of its children, and of theirs."""
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from descendants(child)
