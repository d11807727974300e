"""A table too large for one cycle: read in pieces beside its writers, through kills, without a long snapshot."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from places import execute, one
from running_hub import RunningHub, assert_feed_equals_source, assert_ods_equals_source, eventually

from catchment.demo.cluster import Cluster

ROWS = 300_000
LARGE = f"""
CREATE TABLE large (id int PRIMARY KEY, n int NOT NULL, text text, kept text) WITH (fillfactor = 70);
ALTER TABLE large ALTER kept SET STORAGE EXTERNAL;
INSERT INTO large SELECT n, 0, repeat('x', 100),
    CASE WHEN n % 50 = 0 THEN repeat(md5(n::text), 80) END FROM generate_series(1, {ROWS}) n;
CREATE PUBLICATION catchment FOR TABLE large WHERE (md5(repeat(to_hex(id), 500)) <> '')
"""
# The filter lets everything through, but takes its time: a fast machine would read the table in one cycle.


@contextmanager
def writers(dsn: str, seed: int) -> Iterator[None]:
    """Rows move to other pages, their TOASTed values unchanged; some change their key, come, or go."""
    stop = threading.Event()

    def write(number: int) -> None:
        chance = random.Random(seed + number)
        with psycopg.connect(dsn, autocommit=True) as connection:
            while not stop.is_set():
                some = chance.randrange(0, ROWS, 50)
                match chance.randrange(6):
                    case 0:
                        connection.execute("DELETE FROM large WHERE id = %s", (some + 1,))
                    case 1:
                        connection.execute(
                            "INSERT INTO large VALUES (%s, 1, 'new', 'new') ON CONFLICT DO NOTHING", (some + 1,)
                        )
                    case 2:
                        connection.execute(
                            "UPDATE large SET id = -id WHERE id = %s AND NOT EXISTS (SELECT FROM large WHERE id = -%s)",
                            (some, some),
                        )
                    case _:
                        connection.execute(
                            "UPDATE large SET n = n + 1, text = repeat('y', 150) WHERE id BETWEEN %s AND %s",
                            (some, some + 40),
                        )
                stop.wait(0.002)

    threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_promise_1_a_table_read_in_many_cycles_under_writes_and_kills_is_whole(
    private_cluster: Cluster, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    source = private_cluster.dsn()
    execute(source, *LARGE.strip().removesuffix(";").split(";\n"))
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    hub = hub_factory({"orders": source}, ods=ods_database, feed=True)
    with writers(source, seed):
        hub.start()
        kills = 0
        while not has_appeared(ods_database):
            if is_read(source) if kills == 0 else kills == 1 and told(hub) > ROWS // 3:
                hub.kill_worker(chance)
                kills += 1
        assert kills, "it was read too fast to be disturbed"
    hub.stop()
    hub.until_caught_up()
    assert_ods_equals_source(ods_database, "orders", source)
    assert_feed_equals_source(hub, "orders", {"large": ["id"]})
    read = sum(b'"op": "r"' in line or b'"op":"r"' in line for line in hub.feed_lines("orders"))
    assert read < 1.5 * ROWS, "it was begun again"


def test_promise_3_a_table_that_cannot_be_read_to_its_end_is_not_shown_in_part(
    private_cluster: Cluster, ods_database: str, hub_factory: Callable[..., RunningHub]
) -> None:
    source = private_cluster.dsn()
    execute(source, *LARGE.replace("500", "5000").strip().removesuffix(";").split(";\n"))
    execute(source, "CREATE TABLE small (id serial PRIMARY KEY)", "ALTER PUBLICATION catchment ADD TABLE small")
    execute(source, "CREATE ROLE reader REPLICATION LOGIN", "GRANT SELECT ON large, small TO reader")
    hub = hub_factory({"orders": private_cluster.dsn(user="reader")}, ods=ods_database)
    hub.start()
    while not told(hub):
        execute(source, "INSERT INTO small DEFAULT VALUES")  # somebody writes: cycles are short
        assert not has_appeared(ods_database), "it was read too fast to be disturbed"
    execute(source, "REVOKE SELECT ON large FROM reader")
    eventually(lambda: one(ods_database, "SELECT to_regclass('orders.small') IS NOT NULL") is True, "the other table")
    assert not has_appeared(ods_database)
    execute(source, "GRANT SELECT ON large TO reader")
    eventually(lambda: has_appeared(ods_database), "the whole table")
    hub.stop()
    hub.until_caught_up()
    assert_ods_equals_source(ods_database, "orders", source)


def has_appeared(ods: str) -> bool:
    """Whether the first load is over."""
    return one(ods, "SELECT to_regclass('orders.large') IS NOT NULL") is True


def is_read(source: str) -> bool:
    """Whether a backfill is reading just now."""
    return one(source, "SELECT count(*) > 0 FROM pg_stat_progress_copy WHERE tuples_processed > 1000") is True


def told(hub: RunningHub) -> int:
    """Rows that the backfill under way has brought."""
    return sum(refill["rows"] for source in hub.status()["sources"] for refill in source["refills"])
