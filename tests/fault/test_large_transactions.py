"""Source transactions larger than anybody's memory; from outside."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import psycopg
import pytest
from places import KEYS, execute, has_rows, make_places, one
from running_hub import RunningHub, assert_feed_equals_source, assert_ods_equals_source, eventually

from catchment.demo.cluster import Cluster


@pytest.mark.server_versions
def test_promise_3_transactions_that_are_streamed_in_progress_appear_whole_or_not_at_all(
    private_cluster: Cluster, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    source = private_cluster.dsn()
    execute(source, "ALTER SYSTEM SET logical_decoding_work_mem = '64kB'", "SELECT pg_reload_conf()")
    make_places(source)
    hub = hub_factory({"orders": source}, ods=ods_database, feed=True)
    hub.start()
    eventually(lambda: has_rows(ods_database, "orders.places", 1000), "the first load")
    chance = random.Random(7)
    done = threading.Event()

    def write(worker: int) -> None:
        with psycopg.connect(source) as connection:
            for number in range(6):
                base = 10_000 * (10 * worker + number + 1)
                for piece in range(4):
                    connection.execute("SAVEPOINT piece")
                    connection.execute(
                        "INSERT INTO places SELECT n, repeat('x', 100) FROM generate_series(%s::int, %s) n",
                        (base + piece * 2000, base + piece * 2000 + 1999),
                    )
                    connection.execute("UPDATE places SET name = 'changed' WHERE id = %s", (base + piece * 2000,))
                    if piece % 2:
                        connection.execute("ROLLBACK TO piece")
                if number == 3:
                    connection.rollback()
                else:
                    connection.commit()

    writers = [threading.Thread(target=write, args=(worker,), daemon=True) for worker in range(2)]
    for writer in writers:
        writer.start()

    def watch() -> None:
        with psycopg.connect(ods_database, autocommit=True) as connection:
            while not done.is_set():
                ((rows,),) = connection.execute("SELECT count(*) FROM orders.places").fetchall()
                assert (rows - 1000) % 4000 == 0, "half of a transaction"

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    hub.kill_worker(chance)
    for writer in writers:
        writer.join()
    eventually(lambda: has_rows(ods_database, "orders.places", 41_000), "all transactions")
    done.set()
    watcher.join()
    streamed = "SELECT stream_txns > 0 FROM pg_stat_replication_slots WHERE slot_name = 'catchment_orders'"
    eventually(lambda: one(source, streamed) is True, "transactions streamed in progress")
    hub.stop()
    hub.until_caught_up()
    assert_ods_equals_source(ods_database, "orders", source)
    assert_feed_equals_source(hub, "orders", KEYS)
    left = list((hub.directory / "var" / "held").rglob("*.messages"))
    assert not left
