"""What a hub costs that has nothing to do: a hundred idle sources, all of their tables loaded.

CPU as per cent of one core over two minutes, memory as the sum of PSS, both over all of the hub's processes. Idle
sources take checkpoints, are vacuumed, and are asked for their catalogs and slots as always. To wake up costs a virtual
machine that is at rest very different amounts: beside it stands what a program costs that wakes four times a second.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from bench.hub import configure, cpu, descendants, memory, running, wait_until
from catchment.demo.cluster import Cluster

SOURCES = 100
_SETTLING_SECONDS, _SECONDS = 60, 120
_WAKES = """
import time
began = time.monotonic()
while time.monotonic() - began < 15:
    time.sleep(0.25)
print(time.process_time())
"""
_SETTINGS = {"max_connections": SOURCES * 5, "max_wal_senders": SOURCES + 10, "max_replication_slots": SOURCES + 10}
_LOADED = "SELECT count(*) FROM pg_class WHERE relname = 'usual' AND relnamespace::regnamespace::text ~ '^idle_'"


def measure() -> dict[str, float]:
    """Per cent of a core, megabytes, processes, and the seconds until all had been loaded."""
    with tempfile.TemporaryDirectory() as directory, Cluster(settings=_SETTINGS) as source, Cluster() as ods:
        with psycopg.connect(source.dsn(), autocommit=True) as admin:
            admin.execute("CREATE TABLE usual (id int PRIMARY KEY, note text)")
            admin.execute("INSERT INTO usual SELECT n, 'a note' FROM generate_series(1, 100) n")
            admin.execute("CREATE PUBLICATION catchment FOR ALL TABLES")
        with psycopg.connect(source.dsn("template1"), autocommit=True) as admin:
            for number in range(SOURCES):
                admin.execute(f"CREATE DATABASE idle_{number} TEMPLATE postgres")
        sources = {f"idle_{number}": source.dsn(f"idle_{number}") for number in range(SOURCES)}
        began = time.perf_counter()
        with (
            running(configure(Path(directory), sources, ods.dsn())) as hub,
            psycopg.connect(ods.dsn(), autocommit=True) as reader,
        ):
            wait_until(lambda: reader.execute(_LOADED).fetchone() == (SOURCES,), 0.2)
            loaded = time.perf_counter() - began
            time.sleep(_SETTLING_SECONDS)  # what remains of starting
            before, clock = cpu(hub), time.perf_counter()
            time.sleep(_SECONDS)
            share = (cpu(hub) - before) / (time.perf_counter() - clock)
            waking = float(subprocess.run([sys.executable, "-c", _WAKES], check=True, capture_output=True).stdout) / 15
            return {
                "sources": float(SOURCES),
                "per cent of a core": share * 100,
                "per cent, of a program that wakes four times a second": waking * 100,
                "memory, MB": memory(hub),
                "processes": 1.0 + len(list(descendants(hub))),
                "seconds until all were loaded": loaded,
            }
