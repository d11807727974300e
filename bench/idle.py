"""What a hub costs that has nothing to do: a hundred idle sources, all of their tables loaded.

CPU as per cent of one core over half a minute, memory as the sum of PSS, both over all of the hub's processes. Idle
sources take checkpoints and are asked for their catalogs and slots as always.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from bench.memory import descendants, memory
from catchment.demo.cluster import Cluster

SOURCES = 100
_SECONDS = 30
_SETTINGS = {"max_connections": SOURCES * 5, "max_wal_senders": SOURCES + 10, "max_replication_slots": SOURCES + 10}


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
        config = Path(directory) / "catchment.toml"
        sources = [
            f'[[source]]\nname = "idle_{number}"\ndsn = "{source.dsn(f"idle_{number}")}"\n' for number in range(SOURCES)
        ]
        config.write_text("".join(sources) + f'[ods]\ndsn = "{ods.dsn()}"\n')
        began = time.perf_counter()
        hub = subprocess.Popen(
            [sys.executable, "-m", "catchment.cli.main", "run", "--config", config],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_until_loaded(ods.dsn())
            loaded = time.perf_counter() - began
            time.sleep(_SECONDS)  # what remains of starting
            before, clock = _cpu(hub.pid), time.perf_counter()
            time.sleep(_SECONDS)
            share = (_cpu(hub.pid) - before) / (time.perf_counter() - clock)
            result = {
                "sources": float(SOURCES),
                "per cent of a core": share * 100,
                "memory, MB": memory(hub.pid),
                "processes": 1.0 + len(list(descendants(hub.pid))),
                "seconds until all were loaded": loaded,
            }
        finally:
            hub.send_signal(signal.SIGINT)
            hub.wait()
    return result


def _wait_until_loaded(dsn: str) -> None:
    query = "SELECT count(*) FROM pg_class WHERE relname = 'usual' AND relnamespace::regnamespace::text ~ '^idle_'"
    with psycopg.connect(dsn, autocommit=True) as connection:
        while connection.execute(query).fetchone() != (SOURCES,):
            time.sleep(0.2)


def _cpu(root: int) -> float:
    """Seconds that this process and its descendants have used."""
    total = 0
    for pid in [root, *descendants(root)]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")
