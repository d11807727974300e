"""Commands against real servers: what a team runs, and one source from its first row to its removal."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from catchment.demo.cluster import Cluster
from catchment.demo.scratch import as_server

every_version = pytest.mark.server_versions

CANARY = "canary7391"
PATIENCE = 60.0


def do(dsn: str, statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statements)


def rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query).fetchall()


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Hub:
    """A configuration with one source and an ODS, and the commands on it."""

    def __init__(self, directory: Path, source: str, ods: str) -> None:
        self.config = directory / "catchment.toml"
        self.source, self.ods = source, ods
        self.slot = f"catchment_{conninfo_to_dict(source)['dbname']}"
        self.write()

    def write(self, publication: str = "catchment") -> None:
        source, ods = (make_conninfo(dsn, password=CANARY) for dsn in (self.source, self.ods))
        self.config.write_text(
            f'[[source]]\nname = "shop"\ndsn = "{source}"\npublication = "{publication}"\nslot = "{self.slot}"\n\n'
            f'[ods]\ndsn = "{ods}"\n'
        )

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "catchment.cli.main", *arguments, "--config", str(self.config)]

    def __call__(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=2 * PATIENCE, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert CANARY not in done.stdout + done.stderr
        return done

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        """A ``run`` that is asked to end after the block."""
        with subprocess.Popen(
            self.command("run"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                until(lambda: "streaming" in {source["state"] for source in self.status()["sources"]})
                yield process
            finally:
                process.terminate()
                _, complaints = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, complaints
        assert CANARY not in complaints

    def status(self) -> dict[str, list[dict[str, Any]]]:
        summary: dict[str, list[dict[str, Any]]] = json.loads(self("status", "--json").stdout)
        return summary


@pytest.fixture
def hub(tmp_path: Path, source_database: str, ods_database: str) -> Hub:
    do(source_database, "CREATE TABLE accounts (id int PRIMARY KEY, owner text)")
    do(source_database, "INSERT INTO accounts SELECT n, 'somebody' FROM generate_series(1, 100) AS n")
    do(source_database, "CREATE PUBLICATION catchment FOR TABLE accounts")
    return Hub(tmp_path, source_database, ods_database)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    (line,) = done.stderr.splitlines()
    return line.removeprefix("error: ")


@every_version
def test_source_sql_runs_as_printed_and_makes_the_source_ready(
    tmp_path: Path, source_cluster: Cluster, source_database: str, ods_database: str
) -> None:
    do(source_database, "DROP ROLE IF EXISTS reader_invited; CREATE TABLE accounts (id int PRIMARY KEY)")
    do(source_database, "CREATE TABLE sales (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    hub = Hub(tmp_path, make_conninfo(source_database, user="reader_invited"), ods_database)
    printed = hub("source", "sql", "shop").stdout
    subprocess.run(
        [source_cluster.binaries / "psql", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", source_database],
        input=printed,
        text=True,
        check=True,
        capture_output=True,
        **as_server(),
    )
    assert "good: source shop: PostgreSQL" in hub("check").stdout
    do(source_database, "CREATE TABLE later (id int PRIMARY KEY)")
    assert "tables shared: 3" in hub("check").stdout
    do(source_database, "DROP PUBLICATION catchment; DROP OWNED BY reader_invited; DROP ROLE reader_invited")


def test_what_init_writes_passes_check_once_its_dsns_are_filled_in(hub: Hub) -> None:
    hub.config.unlink()
    hub("init")
    text = hub.config.read_text()
    for placeholder, dsn in (
        ("orders-db.example dbname=orders", hub.source),
        ("warehouse.example dbname=ods", hub.ods),
    ):
        text = text.replace(f"host={placeholder} user=catchment", make_conninfo(dsn, password=CANARY))
    hub.config.write_text(text)
    assert "error" not in hub("check").stdout


@every_version
def test_a_run_until_caught_up_delivers_everything_and_ends(hub: Hub) -> None:
    done = hub("run", "--until-caught-up", "--only", "shop")
    assert done.stdout.splitlines() == [
        f"collecting from shop; delivering to ods; state in {hub.config.parent / 'var'}",
        "caught up with shop",
    ]
    assert rows(hub.ods, "SELECT count(*), sum(id) FROM shop.accounts") == [(100, 5050)]
    summary = hub.status()
    assert [source["state"] for source in summary["sources"]] == ["not running"]
    assert summary["targets"][0]["frontier"]
    shown = [json.loads(line) for line in hub("log", "show", "shop", "--table", "public.accounts").stdout.splitlines()]
    assert sum(line.get("op") == "r" for line in shown) == 100


def test_a_run_that_is_stopped_says_why_and_fails(hub: Hub) -> None:
    do(hub.ods, "CREATE SCHEMA shop; CREATE TABLE shop.accounts (note text)")
    done = hub("run", "--until-caught-up", status=1)
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("stopped: source shop, table public.accounts: ")
    assert lines[-1].endswith("rename or drop it, then `catchment backfill shop public.accounts`")
    logged = [json.loads(line) for line in lines[:-1]]
    assert {"level", "timestamp", "event"} <= logged[0].keys()


def test_a_source_from_its_first_row_to_its_removal(hub: Hub) -> None:
    with hub.running():
        until(lambda: hub.status()["targets"][0]["state"] == "streaming")
        do(hub.source, "INSERT INTO accounts VALUES (101, 'late')")
        until(lambda: rows(hub.ods, "SELECT count(*) FROM shop.accounts") == [(101,)])
        assert "holds" in error_of(hub("run", status=1))
        assert hub("backfill", "shop", "public.accounts").stdout == "101 rows read\n"
        assert error_of(hub("backfill", "shop", "public.nothing", status=1)) == (
            "refused: publication catchment of source shop has no table public.nothing; name tables as schema.table"
        )
        (source,), (target,) = (hub.status()[kind] for kind in ("sources", "targets"))
        assert {"active": True, "wal_status": "reserved"}.items() <= source["slot"].items()
        assert isinstance(source["lag_bytes"], int)
        assert isinstance(target["lag_seconds"], float)
        assert hub("source", "drop", "shop", "--purge").stdout.splitlines()[0] == (
            f"slot {hub.slot} dropped, log removed, removed from ods"
        )
    assert rows(hub.source, f"SELECT FROM pg_replication_slots WHERE slot_name = '{hub.slot}'") == []
    assert rows(hub.ods, "SELECT to_regclass('shop.accounts')") == [(None,)]


def test_a_source_is_removed_without_a_hub_too(hub: Hub) -> None:
    hub("run", "--until-caught-up")
    assert hub("source", "drop", "shop").stdout.splitlines()[0] == f"slot {hub.slot} dropped, log removed"
    assert rows(hub.source, f"SELECT FROM pg_replication_slots WHERE slot_name = '{hub.slot}'") == []
    assert rows(hub.ods, "SELECT count(*) FROM shop.accounts") == [(100,)]
    assert hub("source", "drop", "shop", "--purge").stdout.splitlines()[0] == (
        f"slot {hub.slot} was not there, log removed, removed from ods"
    )
    assert rows(hub.ods, "SELECT to_regclass('shop.accounts')") == [(None,)]
