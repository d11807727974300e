"""What a hub costs that has nothing to do: a hundred idle sources, all of their tables loaded.

CPU as per cent of one core over half a minute, memory as the sum of PSS, both over all of the hub's processes. Idle
sources take checkpoints and are asked for their catalogs and slots as always.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import psycopg

from bench.hub import configure, cpu, descendants, memory, running, wait_until
from catchment.demo.cluster import Cluster

SOURCES = 100
_SECONDS = 30
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
            time.sleep(_SECONDS)  # what remains of starting
            before, clock = cpu(hub), time.perf_counter()
            time.sleep(_SECONDS)
            share = (cpu(hub) - before) / (time.perf_counter() - clock)
            return {
                "sources": float(SOURCES),
                "per cent of a core": share * 100,
                "memory, MB": memory(hub),
                "processes": 1.0 + len(list(descendants(hub))),
                "seconds until all were loaded": loaded,
            }
