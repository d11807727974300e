"""What a running hub answers over HTTP, from outside."""

from __future__ import annotations

import random
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from exposition_lint import Scrape
from running_hub import RunningHub, eventually

from catchment.demo.cluster import Cluster

CANARY = "canary-7f3a"


class Observed:
    """A hub with ``[metrics]``, and its three pages."""

    def __init__(self, hub: RunningHub) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.hub = hub
        hub.extra = f'[metrics]\nlisten = "127.0.0.1:{self.port}"\n'
        hub.write()

    def get(self, path: str) -> tuple[int, str]:
        """The status and the page; 0 while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def scrape(self) -> Scrape:
        status, page = self.get("/metrics")
        assert status == 200, page
        return Scrape(page)

    def until_ready(self) -> None:
        eventually(lambda: self.get("/readyz") == (200, "ok\n"), "the hub is ready")


def make_table(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE places (id int PRIMARY KEY, name text)")
        connection.execute("INSERT INTO places SELECT n, %s || n FROM generate_series(1, 100) n", [CANARY])
        connection.execute("CREATE PUBLICATION catchment FOR ALL TABLES")


def insert(dsn: str, key: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO places VALUES (%s, %s)", [key, CANARY])


@pytest.fixture
def observed_factory(hub_factory: Callable[..., RunningHub]) -> Callable[..., Observed]:
    return lambda *arguments, **options: Observed(hub_factory(*arguments, **options))


@pytest.mark.server_versions
def test_what_happens_is_counted_and_measured(
    source_database: str, ods_database: str, observed_factory: Callable[..., Observed]
) -> None:
    make_table(source_database)
    observed = observed_factory({"orders": source_database}, ods=ods_database, feed=True)
    observed.hub.start()
    observed.until_ready()
    loaded = observed.scrape()
    assert loaded.value("catchment_target_changes_total", source="orders", target="ods") == 100
    assert loaded.value("catchment_commit_to_applied_seconds_count", source="orders", target="ods") == 0

    insert(source_database, 101)
    labels = {"source": "orders", "target": "ods"}
    eventually(
        lambda: observed.scrape().value("catchment_commit_to_applied_seconds_count", **labels) == 1, "it is measured"
    )
    scrape = observed.scrape()
    assert scrape.value("catchment_source_changes_total", source="orders") == 101
    assert scrape.value("catchment_target_changes_total", **labels) == 101
    assert scrape.value("catchment_slot_active", source="orders") == 1
    assert scrape.value("catchment_tables", source="orders", state="streaming") == 1
    assert scrape.value("catchment_loop_state", source="orders", target="feed", state="streaming") == 1
    assert scrape.value("catchment_slot_retained_bytes", source="orders") is not None
    eventually(lambda: observed.scrape().value("catchment_log_first_offset", source="orders") == 1, "it is looked at")
    eventually(lambda: len(observed.hub.source_status("orders")["lag_history"]) > 1, "the lag has a history")
    assert observed.hub.status()["targets"][0]["lag_history"][-1] is not None
    assert observed.hub.stop() == 0


def test_promise_5_rows_are_not_in_the_metrics(
    source_database: str, ods_database: str, observed_factory: Callable[..., Observed]
) -> None:
    make_table(source_database)
    with psycopg.connect(ods_database, autocommit=True) as ods:  # in the way: its owner's rows are not like ours
        ods.execute("CREATE SCHEMA orders")
        ods.execute("CREATE TABLE orders.places (id int PRIMARY KEY, name text CHECK (name NOT LIKE 'canary%'))")
        ods.execute("INSERT INTO orders.places VALUES (1, 'ours')")
    observed = observed_factory({"orders": source_database}, ods=ods_database, feed=True)
    observed.hub.start()
    eventually(lambda: "stopped: source orders, table public.places: " in observed.get("/readyz")[1], "it stops")
    insert(source_database, 101)
    eventually(lambda: observed.scrape().value("catchment_source_changes_total", source="orders") == 101, "it came")
    pages = [observed.get(path) for path in ("/metrics", "/readyz", "/livez")]
    assert [status for status, _ in pages] == [200, 503, 200]
    assert not [page for _, page in pages if CANARY in page]
    scrape = observed.scrape()
    assert scrape.value("catchment_loop_up", source="orders", target="ods") == 1
    assert scrape.value("catchment_loop_trouble", source="orders", target="ods") == 1
    assert scrape.value("catchment_tables", source="orders", state="stopped") == 1


def test_a_target_that_is_away_is_named_until_it_is_back(
    source_database: str, private_cluster: Cluster, observed_factory: Callable[..., Observed]
) -> None:
    make_table(source_database)
    observed = observed_factory({"orders": source_database}, ods=private_cluster.dsn(), feed=True)
    observed.hub.start()
    observed.until_ready()
    private_cluster.stop()
    insert(source_database, 101)
    eventually(lambda: observed.get("/readyz")[0] == 503, "it is noticed")
    ((line,), live) = observed.get("/readyz")[1].splitlines(), observed.get("/livez")
    assert line.startswith("target ods, source orders: retrying: ")
    assert live == (200, "ok\n")
    private_cluster.start()
    observed.until_ready()
    scrape = observed.scrape()
    assert scrape.value("catchment_loop_restarts_total", source="orders", target="ods")
    assert scrape.value("catchment_loop_errors_total", source="orders", target="ods", error="TargetUnreachable")
    assert scrape.value("catchment_loop_errors_total", source="orders", target="feed", error="TargetUnreachable") == 0


def test_a_worker_started_again_is_counted_and_its_counters_begin_anew(
    source_database: str, observed_factory: Callable[..., Observed]
) -> None:
    make_table(source_database)
    observed = observed_factory({"orders": source_database}, feed=True)
    observed.hub.start()
    observed.until_ready()
    assert observed.scrape().value("catchment_worker_restarts_total", worker="worker-1") == 0
    observed.hub.kill_worker(random.Random(0))
    eventually(lambda: observed.scrape().value("catchment_worker_restarts_total", worker="worker-1") == 1, "restart")
    insert(source_database, 101)
    eventually(lambda: observed.scrape().value("catchment_source_changes_total", source="orders") == 1, "anew")
    observed.until_ready()


def test_an_address_that_is_taken_is_told_in_one_line_before_anything_starts(
    source_database: str, observed_factory: Callable[..., Observed]
) -> None:
    observed = observed_factory({"orders": source_database}, feed=True)
    with socket.create_server(("127.0.0.1", observed.port)):
        done = observed.hub.command("run", expect=2)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: [metrics] listen: cannot listen on 127.0.0.1, port {observed.port}: ")
    assert not Path(observed.hub.directory / "var" / "log").exists()


def test_a_client_that_says_nothing_keeps_nobody_from_ending(
    source_database: str, observed_factory: Callable[..., Observed]
) -> None:
    make_table(source_database)
    observed = observed_factory({"orders": source_database}, feed=True)
    observed.hub.start()
    observed.until_ready()
    with socket.create_connection(("127.0.0.1", observed.port)):
        assert observed.hub.stop() == 0
    observed.hub.until_caught_up()


def test_without_the_setting_nothing_listens_and_nothing_is_loaded(
    source_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    make_table(source_database)
    hub = hub_factory({"orders": source_database}, feed=True)
    hub.start()
    eventually(lambda: hub.source_status("orders")["state"] == "streaming", "it runs")
    assert hub.process is not None
    maps = Path(f"/proc/{hub.process.pid}/maps").read_text()
    assert not [library for library in ("libarrow", "libpq", "numpy") if library in maps]
