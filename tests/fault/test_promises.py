"""The promises, from outside: the command line, catchment.toml and SQL against real servers, with faults."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

import psycopg
import pytest
from faults import inject
from running_hub import RunningHub, assert_feed_equals_source, assert_ods_equals_source
from workload import KEYS, Traffic, make_tables

from catchment.demo.cluster import Cluster

INVARIANT = """SELECT (SELECT sum(abalance) FROM {0}.pgbench_accounts), (SELECT sum(tbalance) FROM {0}.pgbench_tellers),
                      (SELECT sum(bbalance) FROM {0}.pgbench_branches), (SELECT sum(delta) FROM {0}.pgbench_history)"""


class Reader:
    """Checks in REPEATABLE READ transactions on the ODS that pgbench's sums agree, from their first appearance on."""

    def __init__(self, dsn: str, datasets: list[str]) -> None:
        self._dsn = dsn
        self._datasets = datasets
        self._stop = threading.Event()
        self.looks = 0
        self.broken: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._dsn) as connection:
                    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                    self._look(connection)
            except psycopg.Error:
                self._stop.wait(0.1)

    def _look(self, connection: psycopg.Connection) -> None:
        # The snapshot is taken well before the tables are looked at: they may appear in between.
        connection.execute("SELECT 1")
        self._stop.wait(random.random() * 0.3)
        for dataset in self._datasets:
            sums = connection.execute(INVARIANT.format(dataset)).fetchone()
            assert sums is not None
            self.looks += 1
            if len({total or 0 for total in sums}) != 1:
                self.broken.append(f"{dataset}: {sums}")


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    seed = random.randrange(2**32)
    print(f"seed: {seed}")
    return random.Random(seed)


def prepare(dsn: str, cluster: Cluster) -> None:
    cluster.run("pgbench", "-i", "-q", "-s", "2", dsn)
    make_tables(dsn)


@pytest.mark.server_versions
@pytest.mark.parametrize("faults", [8, pytest.param(100, marks=pytest.mark.soak)])
def test_promises_1_3_and_4_hold_whatever_is_killed(
    private_cluster_factory: Callable[..., Cluster],
    hub_factory: Callable[..., RunningHub],
    chance: random.Random,
    faults: int,
) -> None:
    # A crash of the ODS takes back all that did not wait for its disk.
    source, ods = private_cluster_factory(), private_cluster_factory(wal_writer_delay="10s")
    with psycopg.connect(source.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE payments")
    sources = {"orders": source.dsn(), "payments": source.dsn("payments")}
    for dsn in sources.values():
        prepare(dsn, source)
    hub = hub_factory(sources, ods=ods.dsn(), feed=True)
    traffic = [Traffic(dsn, source.binaries, chance.randrange(2**32), 600) for dsn in sources.values()]
    reader = Reader(ods.dsn(), list(sources))
    try:
        hub.start()
        for _ in range(faults):
            time.sleep(chance.uniform(0.5, 3))
            inject(chance, hub, {"source": source, "ods": ods})
    finally:
        for each in traffic:
            each.stop()
    hub.close()
    hub.until_caught_up()
    reader.stop()
    assert reader.broken == []
    assert reader.looks
    for name, dsn in sources.items():
        assert_ods_equals_source(ods.dsn(), name, dsn)
        assert_feed_equals_source(hub, name, KEYS)
