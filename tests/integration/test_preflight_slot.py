"""``check`` and the replication slot: missing, lost, busy, blocked, somebody else's; with and without a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from remedies import at, do, follow, names

from catchment.demo.cluster import Cluster
from catchment.model.lsn import Lsn
from catchment.postgres.connection import of_source
from catchment.postgres.finding import Finding
from catchment.postgres.preflight import Hub, Logged, check_source, transactions
from catchment.postgres.replication import ReplicationConnection
from catchment.postgres.slot import identify_system
from catchment.postgres.source import Source
from catchment.postgres.stream import SlotStream

every_version = pytest.mark.every_server_version

START_OVER = "run `catchment backfill shop`"
SLOT = "catchment_shop_preflight"


@pytest.fixture
def source(source_database: str) -> Source:
    return prepared(source_database)


def prepared(dsn: str) -> Source:
    do(dsn, "CREATE TABLE customers (id int PRIMARY KEY); CREATE PUBLICATION catchment FOR TABLE customers")
    return Source("shop", dsn, "catchment", SLOT)


def make_slot(source: Source, plugin: str = "pgoutput") -> None:
    do(source.dsn, f"SELECT pg_create_logical_replication_slot('{SLOT}', '{plugin}')")


def logged(source: Source, until: Lsn | None = None) -> Logged:
    """What the log of a hub that has taken in everything up to now would say."""
    with ReplicationConnection(source.dsn, of_source("shop")) as replication:
        system = identify_system(replication)
    with psycopg.connect(source.dsn) as connection:
        row = connection.execute("SELECT oid::bigint FROM pg_publication WHERE pubname = 'catchment'").fetchone()
    assert row is not None
    return Logged(system.identifier, system.timeline, row[0], until or system.position)


def look(source: Source, log: Logged | None = None, running: bool = False) -> list[Finding]:
    return check_source(source, Hub(running, log)).findings


def unfilled(source: Source) -> Logged:
    """A log that was begun, while the slot is being created."""
    return replace(logged(source), until=None)


@contextmanager
def open_transaction(dsn: str, **parameters: str) -> Iterator[psycopg.Connection]:
    with closing(psycopg.connect(dsn, **parameters)) as connection:
        connection.execute("SELECT pg_current_xact_id()")
        yield connection


@every_version
def test_a_slot_that_continues_the_log_is_no_obstacle(source: Source) -> None:
    make_slot(source)
    assert names(look(source, logged(source))) == []


@every_version
def test_a_slot_that_the_log_knows_nothing_of_is_an_error(source: Source) -> None:
    make_slot(source)
    finding = at(look(source), "slot_unknown")
    assert finding.remedy.startswith("if no other hub uses it, run `catchment source drop shop`")
    assert names(look(source, unfilled(source))) == [], "left over from a creation that was interrupted"


@every_version
def test_a_slot_that_is_gone_is_lost(source: Source) -> None:
    finding = at(look(source, logged(source)), "slot_lost")
    assert finding.level == "error"
    assert f"slot {SLOT} no longer exists" in finding.what
    assert finding.remedy.startswith(START_OVER)
    assert "ready" not in [finding.check for finding in look(source, logged(source))]


@every_version
def test_a_slot_that_was_made_anew_is_lost(source: Source) -> None:
    before = logged(source)
    do(source.dsn, "INSERT INTO customers VALUES (1)")
    make_slot(source)
    assert "it was advanced or made anew" in at(look(source, before), "slot_lost").what


def test_a_log_of_another_cluster_is_lost(source: Source) -> None:
    make_slot(source)
    finding = at(look(source, replace(logged(source), system="7")), "slot_lost")
    assert "the server is another cluster" in finding.what


@every_version
def test_a_publication_that_was_made_anew_is_lost(source: Source) -> None:
    make_slot(source)
    before = logged(source)
    do(source.dsn, "DROP PUBLICATION catchment; CREATE PUBLICATION catchment FOR TABLE customers")
    finding = at(look(source, before), "slot_lost")
    assert "publication catchment was dropped and made again" in finding.what
    assert finding.remedy.startswith(START_OVER)


def test_a_slot_of_somebody_else_is_named(source: Source) -> None:
    make_slot(source, "test_decoding")
    finding = at(look(source), "slot_foreign")
    assert finding.remedy == "give the source another slot in catchment.toml"


@every_version
def test_a_slot_that_somebody_streams_from_is_busy_unless_a_hub_runs_here(source: Source) -> None:
    make_slot(source)
    known = logged(source)
    with closing(SlotStream(ReplicationConnection(source.dsn, of_source("shop")), SLOT, "catchment", Lsn(0))):
        finding = at(look(source, known), "slot_busy")
        assert "(catchment, postgres)" in finding.what
        assert "give each its own slot" in finding.remedy
        assert names(look(source, known, running=True)) == []


@every_version
def test_a_slot_that_was_invalidated_is_lost_and_one_that_will_be_is_at_risk(
    private_cluster_factory: Callable[..., Cluster],
) -> None:
    cluster = private_cluster_factory(max_slot_wal_keep_size="2GB")
    source = prepared(cluster.dsn())
    make_slot(source)
    known = logged(source)
    do(source.dsn, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    do(source.dsn, "SELECT pg_reload_conf()")
    number = 0
    while "slot_at_risk" not in names(found := look(source, known)):
        do(source.dsn, f"INSERT INTO customers VALUES ({number})")
        do(source.dsn, "SELECT pg_switch_wal()")
        number += 1
        assert number < 50
    assert at(found, "slot_at_risk").level == "warning"
    do(source.dsn, "CHECKPOINT")
    finding = at(look(source, known), "slot_lost")
    assert "was invalidated by the server" in finding.what
    assert finding.remedy.startswith(START_OVER)


@every_version
def test_a_transaction_that_would_hold_up_the_slot_is_named(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "LONG_SECONDS", 0.0)
    with open_transaction(source.dsn, application_name="night job") as blocking:
        finding = at(look(source), "long_transaction")
        assert f"process {blocking.info.backend_pid} has a transaction open since " in finding.what
        assert "night job, postgres, database source_" in finding.what
        follow(source.dsn, finding.remedy)
        assert "long_transaction" not in names(look(source))


def test_a_transaction_that_is_only_short_is_not_worth_a_word(source: Source) -> None:
    with open_transaction(source.dsn):
        assert names(look(source)) == []


@every_version
def test_transactions_that_a_role_may_not_look_at_are_told_with_the_grant(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "LONG_SECONDS", 0.0)
    do(source.dsn, "DROP ROLE IF EXISTS reader_hidden; CREATE ROLE reader_hidden LOGIN REPLICATION")
    do(source.dsn, "GRANT SELECT ON customers TO reader_hidden")
    reader = replace(source, dsn=make_conninfo(source.dsn, user="reader_hidden"))
    with open_transaction(source.dsn) as blocking:
        finding = at(look(reader), "hidden_transactions")
        assert finding.level == "notice"
        assert f"(processes {blocking.info.backend_pid})" in finding.what
        assert "None" not in str(finding)
        follow(source.dsn, finding.remedy)
        assert names(look(reader)) == ["long_transaction"]
    do(source.dsn, "DROP OWNED BY reader_hidden; DROP ROLE reader_hidden")


@every_version
def test_a_prepared_transaction_is_named_whatever_its_age(private_cluster_factory: Callable[..., Cluster]) -> None:
    cluster = private_cluster_factory(max_prepared_transactions=2)
    source = prepared(cluster.dsn())
    with psycopg.connect(source.dsn, autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO customers VALUES (1)")
        connection.execute("PREPARE TRANSACTION 'it''s'")
    finding = at(look(source), "prepared_transaction")
    assert finding.what.startswith("transaction it's of database postgres is prepared since ")
    follow(source.dsn, finding.remedy)
    assert names(look(source)) == []


@every_version
def test_a_slot_whose_creation_waits_is_blocked(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "LONG_SECONDS", 0.0)
    with ReplicationConnection(source.dsn, of_source("shop")) as replication, open_transaction(source.dsn) as blocking:
        replication.pgconn.send_query(f'CREATE_REPLICATION_SLOT "{SLOT}" LOGICAL pgoutput'.encode())
        while "slot_blocked" not in names(found := look(source, unfilled(source), running=True)):
            assert not replication.wait_readable(0.05)
        assert at(found, "slot_blocked").level == "error"
        assert f"process {blocking.info.backend_pid} " in at(found, "long_transaction").what


@every_version
def test_what_a_failover_would_mean_is_told_where_there_are_standbys(
    private_cluster: Cluster, server_version: int
) -> None:
    source = prepared(private_cluster.dsn())
    make_slot(source)
    known = logged(source)
    assert names(look(source, known)) == []
    do(source.dsn, "SELECT pg_create_physical_replication_slot('standby')")
    if server_version < 17:
        assert names(look(source, known)) == ["failover_version"]
        return
    finding = at(look(source, known), "failover")
    command = finding.remedy.partition(": ")[2].rstrip(";")
    with ReplicationConnection(source.dsn, of_source("shop")) as replication:
        replication.execute(command)
    assert names(look(source, known)) == []
