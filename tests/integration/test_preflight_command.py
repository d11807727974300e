"""``catchment check`` as it is typed: what it prints, how it ends, and what it knows of the hub that runs here."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from remedies import do
from running_hub import RunningHub, eventually

from catchment.demo.cluster import Cluster

every_version = pytest.mark.server_versions

USUAL = {"ready", "max_slot_wal_keep_size", "minor_version"}
KEYS = ["level", "check", "where", "what", "why", "remedy"]


def prepare(dsn: str) -> str:
    do(dsn, "CREATE TABLE accounts (id int PRIMARY KEY, owner text); INSERT INTO accounts VALUES (1, 'somebody')")
    do(dsn, "CREATE PUBLICATION catchment FOR TABLE accounts")
    return dsn


def command(config: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "catchment.cli.main", "check", *arguments, "--config", str(config)]


def check(config: Path, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(command(config, *arguments), capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (status, ""), done.stdout
    return done.stdout


def found(config: Path, status: int = 0) -> dict[str, dict[str, str]]:
    """What the command has to say beyond what every server here has."""
    findings = json.loads(check(config, "--json", status=status))
    assert all(list(finding) == KEYS for finding in findings)
    return {finding["check"]: finding for finding in findings if finding["check"] not in USUAL}


@pytest.fixture
def config(tmp_path: Path, source_database: str, ods_database: str) -> Path:
    path = tmp_path / "catchment.toml"
    source = prepare(source_database)
    path.write_text(f'[[source]]\nname = "shop"\ndsn = "{source}"\n[ods]\ndsn = "{ods_database}"\n')
    return path


@every_version
def test_each_finding_is_a_line_and_the_gravest_of_a_server_is_first(config: Path) -> None:
    lines = [line.partition(": ") for line in check(config).splitlines()]
    expected = [("good", "source shop"), ("notice", "source shop"), ("good", "ods")]
    assert [(level, rest.partition(":")[0]) for level, _, rest in lines if level != "warning"] == expected
    assert not (config.parent / "var").exists(), "looking makes nothing"


def test_an_error_ends_it_with_1_and_each_server_is_looked_at_on_its_own(config: Path, ods_database: str) -> None:
    config.write_text(
        config.read_text().replace(ods_database, "host=127.0.0.1 port=1")
        + '[[source]]\nname = "till"\ndsn = "host=127.0.0.1 port=1"\n'
    )
    shop, notice, till, ods = check(config, status=1).splitlines()
    assert (shop.partition(":")[0], notice.partition(":")[0]) == ("good", "notice")
    assert till.startswith("error: source till: it cannot be looked at: ")
    assert ods.startswith("error: ods: it cannot be looked at: ")
    assert ods.endswith("; check that the server runs and that the dsn is right")


@pytest.mark.parametrize(("place", "which"), [("source shop", 0), ("ods", 1)])
def test_a_dsn_that_cannot_be_read_is_a_matter_of_configuration(tmp_path: Path, place: str, which: int) -> None:
    dsns = ["host=127.0.0.1 port=1", "host=127.0.0.1 port=1"]
    dsns[which] = "canary7391 = = "
    path = tmp_path / "catchment.toml"
    path.write_text(f'[[source]]\nname = "shop"\ndsn = "{dsns[0]}"\n[ods]\ndsn = "{dsns[1]}"\n')
    done = subprocess.run(command(path), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {place}: the dsn is not a connection string that libpq understands; ")
    assert "canary7391" not in done.stderr


def test_what_servers_need_of_each_other_is_compared(
    tmp_path: Path, private_cluster_factory: Callable[..., Cluster]
) -> None:
    cluster = private_cluster_factory()
    prepare(cluster.dsn())
    path = tmp_path / "catchment.toml"
    over_tcp = cluster.dsn(host="127.0.0.1")
    path.write_text(
        f'[[source]]\nname = "shop"\ndsn = "{cluster.dsn()}"\nslot = "one"\n'
        f'[[source]]\nname = "till"\ndsn = "{over_tcp}"\nslot = "one"\n[ods]\ndsn = "{over_tcp}"\n'
    )
    assert set(found(path, status=1)) == {"slot_shared", "ods_apart"}


def test_what_the_log_and_the_hub_know_is_taken_into_account(
    hub_factory: Callable[..., RunningHub], source_database: str, ods_database: str
) -> None:
    def released(dsn: str) -> bool:
        with psycopg.connect(dsn) as connection:
            active = connection.execute("SELECT FROM pg_replication_slots WHERE active").fetchall()
        return not active

    hub = hub_factory({"shop": prepare(source_database)}, ods=ods_database)
    config = hub.config
    assert found(config) == {}
    hub.start()
    eventually(lambda: hub.source_status("shop")["state"] == "streaming", "it streams")
    assert found(config) == {}, "a slot that the hub here streams from is not busy"
    hub.stop()
    eventually(lambda: released(source_database), "the slot is let go")
    assert found(config) == {}, "it continues the log"
    do(source_database, "SELECT pg_drop_replication_slot('catchment_shop')")
    lost = found(config, status=1)["slot_lost"]
    assert lost["remedy"].startswith("run `catchment backfill shop`")
    do(source_database, "SELECT pg_create_logical_replication_slot('catchment_shop', 'pgoutput')")
    assert "made anew" in found(config, status=1)["slot_lost"]["what"]


def test_a_log_that_cannot_be_read_is_one_finding(config: Path) -> None:
    directory = config.parent / "var" / "log" / "shop"
    directory.mkdir(parents=True, mode=0o700)
    (directory / f"{1:020}.sqlite").write_bytes(b"nonsense" * 1000)
    line = check(config, status=1).splitlines()[0]
    assert line.startswith("error: source shop: it cannot be looked at: ")


def drawn(config: Path) -> list[str]:
    """The lines on a terminal of 60 columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "60"}
    with subprocess.Popen(command(config), stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as showing:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # the other end is closed
            while piece := os.read(ours, 4096):
                shown += piece
    os.close(ours)
    assert showing.returncode == 0
    return shown.decode().splitlines()


def test_a_terminal_is_shown_a_block_for_each_server(config: Path, source_database: str) -> None:
    do(source_database, "ALTER TABLE accounts REPLICA IDENTITY NOTHING")
    lines = drawn(config)
    assert "\x1b[1msource shop\x1b[0m" in lines
    assert '          ALTER TABLE "public"."accounts" REPLICA IDENTITY DEFAULT;' in lines, "in one piece, to be copied"
    assert "0 errors, 1 warning, 1 notice" in lines[-1]


def test_many_notices_of_one_kind_are_summed_up_on_a_terminal_only(config: Path, source_database: str) -> None:
    tables = [f"t{number}" for number in range(9)]
    do(source_database, "; ".join(f"CREATE TABLE {name} (id int PRIMARY KEY, secret_{name} text)" for name in tables))
    do(source_database, f"ALTER PUBLICATION catchment ADD TABLE {', '.join(f'{name} (id)' for name in tables)}")
    assert check(config).count("columns that the publication leaves out: secret") == 9
    lines = "\n".join(drawn(config))
    assert lines.count("columns that the publication leaves out: secret") == 3
    assert "and 6 more notices like these; --json has them all" in lines


def test_a_role_with_a_password_in_its_dsn_is_never_quoted(config: Path, source_database: str) -> None:
    secret = make_conninfo(source_database, password="canary7391", dbname="nowhere")  # noqa: S106
    config.write_text(config.read_text().replace(source_database, secret))
    assert "canary7391" not in check(config, status=1)
