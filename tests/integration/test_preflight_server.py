"""``check`` and how a source's server is set up, reached and kept alive: on servers that are set up wrongly."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from remedies import at, do, follow, names, until_gone

from catchment.demo.cluster import Cluster
from catchment.model.errors import SourceUnreachable
from catchment.postgres.finding import Finding
from catchment.postgres.preflight import Report, check_source, check_together
from catchment.postgres.preflight.faults import KNOWN, check_minor_version
from catchment.postgres.source import Source

every_version = pytest.mark.every_server_version

TABLES = "CREATE TABLE customers (id int PRIMARY KEY); CREATE PUBLICATION catchment FOR TABLE customers"


def prepared(cluster: Cluster) -> Source:
    do(cluster.dsn(), TABLES)
    return Source("shop", cluster.dsn(), "catchment", "catchment_shop")


def look(source: Source) -> list[Finding]:
    return check_source(source).findings


def test_a_server_that_is_set_up_for_less_is_told_what_to_set(private_cluster_factory: Callable[..., Cluster]) -> None:
    cluster = private_cluster_factory(wal_level="replica", max_replication_slots=1, max_wal_senders=0)
    source = prepared(cluster)
    do(cluster.dsn(), "SELECT pg_create_physical_replication_slot('taken')")
    findings = look(source)
    assert names(findings) == ["wal_level", "max_replication_slots", "max_wal_senders"]
    assert str(at(findings, "wal_level")).startswith("error: source shop: wal_level is replica (")
    for finding in findings:
        if finding.level == "error":
            assert finding.remedy.endswith("; then restart the server")
            follow(cluster.dsn(), finding.remedy)
    cluster.restart()
    assert names(look(source)) == []


@every_version
def test_settings_that_lose_the_slot_or_the_stream_are_mended_while_the_server_runs(
    private_cluster_factory: Callable[..., Cluster], server_version: int
) -> None:
    settings: dict[str, str | int] = {
        "max_slot_wal_keep_size": "100MB",
        "wal_sender_timeout": "2s",
        "logical_decoding_work_mem": "64kB",
    }
    expected = ["max_slot_wal_keep_size_small", "wal_sender_timeout_small", "logical_decoding_work_mem"]
    if server_version >= 18:
        settings |= {"idle_replication_slot_timeout": "1h", "output_plugin_libraries": "test_decoding"}
        expected[1:1] = ["idle_replication_slot_timeout"]
        expected[:0] = ["output_plugin_libraries"]
    cluster = private_cluster_factory(**settings)
    source = prepared(cluster)
    findings = look(source)
    assert names(findings) == expected
    assert at(findings, "wal_sender_timeout_small").what == "wal_sender_timeout is only 2s"
    for check in expected:
        follow(cluster.dsn(), at(findings, check).remedy)
        until_gone(lambda: look(source), check)
    assert names(look(source)) == []
    do(cluster.dsn(), "ALTER SYSTEM SET wal_sender_timeout = 0")
    do(cluster.dsn(), "ALTER SYSTEM SET max_slot_wal_keep_size = -1")
    cluster.restart()
    for check in ("wal_sender_timeout", "max_slot_wal_keep_size"):
        finding = at(look(source), check)
        follow(cluster.dsn(), finding.remedy)
        until_gone(lambda: look(source), check)


@every_version
def test_a_role_without_privileges_can_be_told_all_of_this(private_cluster_factory: Callable[..., Cluster]) -> None:
    cluster = private_cluster_factory(wal_sender_timeout="2s")
    source = prepared(cluster)
    do(cluster.dsn(), "CREATE ROLE reader LOGIN REPLICATION; GRANT SELECT ON customers TO reader")
    found = look(Source("shop", cluster.dsn(user="reader"), "catchment", source.slot))
    assert names(found) == ["wal_sender_timeout_small"]


def test_a_standby_is_no_source(private_cluster: Cluster) -> None:
    source = prepared(private_cluster)
    standby = Cluster(private_cluster.binaries, directory=private_cluster.home / "standby")
    try:
        private_cluster.run("pg_basebackup", "-D", standby.directory, "-d", private_cluster.dsn(), "-R", "-c", "fast")
        standby.settings |= {"fsync": "off", "shared_buffers": "32MB", "dynamic_shared_memory_type": "mmap"}
        standby.start()
        (finding,) = look(Source("shop", standby.dsn(), "catchment", source.slot))
        assert (finding.level, finding.check) == ("error", "standby")
        assert "target_session_attrs=primary" in finding.remedy
    finally:
        standby.remove()


def own_address() -> str | None:
    """One of this machine's addresses on a network; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return None


def test_a_connection_over_the_network_that_is_not_encrypted_is_a_warning(
    private_cluster_factory: Callable[..., Cluster],
) -> None:
    address = own_address()
    if address is None or address.startswith("127."):
        pytest.skip("this machine is on no network")
    cluster = private_cluster_factory(listen_addresses="*")
    source = prepared(cluster)
    with Path(cluster.directory / "pg_hba.conf").open("a") as file:
        file.write(f"host all all {address}/32 trust\nhost replication all {address}/32 trust\n")
    cluster.restart()
    over_network = Source("shop", cluster.dsn(host=address), "catchment", source.slot)
    assert at(look(over_network), "tls").what == f"the connection to {address} is not encrypted"
    assert "tls" not in names(look(Source("shop", cluster.dsn(host="127.0.0.1"), "catchment", source.slot)))


def test_a_pooler_in_between_is_named() -> None:
    report = Report()
    report.broken_off(SourceUnreachable("FATAL: unsupported startup parameter: options", source="shop"), "source shop")
    assert (report.findings[0].check, report.findings[0].remedy) == ("pooler", "let the dsn name the server itself")


@every_version
def test_sources_that_share_a_server_are_counted_together(private_cluster_factory: Callable[..., Cluster]) -> None:
    cluster = private_cluster_factory(max_replication_slots=2)
    source = prepared(cluster)
    do(cluster.dsn(), "SELECT pg_create_physical_replication_slot('standby')")
    slots = {"shop": "catchment_shop", "till": "catchment_till"}

    def together() -> list[Finding]:
        reports = {name: check_source(Source(name, source.dsn, "catchment", slot)) for name, slot in slots.items()}
        return list(check_together(slots, reports))

    (finding,) = together()
    assert finding.what == "sources shop, till are on one server, where 1 of 2 replication slots are free"
    follow(cluster.dsn(), finding.remedy)
    cluster.restart()
    assert together() == []
    slots["till"] = "catchment_shop"
    (finding,) = together()
    assert (finding.check, finding.where) == ("slot_shared", "source till")


@pytest.mark.parametrize(
    ("number", "lost", "fixed"),
    [(170_004, True, "17.10"), (170_005, False, "17.10"), (140_017, True, "14.19"), (150_018, False, "15.20")],
)
def test_a_minor_release_is_known_by_what_was_mended_after_it(number: int, lost: bool, fixed: str) -> None:
    (finding,) = check_minor_version(number, "source shop")
    assert ("changes are lost when a table is added" in finding.what) == lost
    assert finding.remedy.endswith(f"https://www.postgresql.org/docs/release/{fixed}/")


def test_a_fault_that_came_with_a_mend_is_not_told_of_older_releases() -> None:
    (fault,) = (fault for fault in KNOWN if fault.since)
    assert [fault.concerns(17, minor) for minor in (4, 5, 6)] == [False, True, False]
    assert not fault.concerns(18, 0)


@pytest.mark.parametrize("number", [150_020, 180_006, 190_000])
def test_nothing_is_said_of_releases_without_known_faults(number: int) -> None:
    assert list(check_minor_version(number, "source shop")) == []


def test_only_what_can_be_looked_up_is_asked(private_cluster: Cluster) -> None:
    """The server is as it was: nothing is created and no transaction stays open."""
    source = prepared(private_cluster)
    with psycopg.connect(private_cluster.dsn(), autocommit=True) as connection:
        query = (
            "SELECT pg_current_xact_id_if_assigned(), (pg_control_checkpoint()).next_xid, pg_current_wal_insert_lsn()"
        )
        connection.execute("CHECKPOINT")
        before = connection.execute(query).fetchone()
        look(source)
        assert connection.execute(query).fetchone() == before
        others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'catchment'"
        while connection.execute(others).fetchone() != (0,):
            os.sched_yield()


def test_a_server_that_keeps_its_identity_to_itself_is_looked_at_all_the_same(private_cluster: Cluster) -> None:
    source = prepared(private_cluster)
    do(source.dsn, "CREATE ROLE reader LOGIN REPLICATION; GRANT SELECT ON customers TO reader")
    do(source.dsn, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM public")
    reports = {"shop": check_source(Source("shop", private_cluster.dsn(user="reader"), "catchment", source.slot))}
    assert names(reports["shop"].findings) == []
    assert list(check_together({"shop": source.slot}, reports)) == []
