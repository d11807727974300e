"""The ODS when things go wrong, or happen at the same time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from ods_batches import Ods, Source, reshaped, table
from running_hub import eventually

from catchment.demo.cluster import Cluster
from catchment.model.batch import Batch, RefillFinished, RefillStarted, SchemaChanged
from catchment.model.errors import TableRefused, TargetRefused, TargetUnreachable, TargetWentBack
from catchment.model.frontier import Frontier
from catchment.postgres import pool
from catchment.postgres.connection import of_target
from catchment.targets.ods import altering, session
from catchment.targets.ods.session import MOST_STAGINGS
from catchment.targets.ods.target import OdsTarget

pytestmark = pytest.mark.server_versions

ACCOUNTS = table("accounts", "id int4", "name text")


@pytest.fixture
def target(ods_database: str) -> Iterator[OdsTarget]:
    target = OdsTarget(ods_database, {f"s{n}": f"s{n}" for n in range(6)}, most_connections=3)
    yield target
    target.close()


def test_sources_apply_at_the_same_time(ods: Ods, target: OdsTarget) -> None:
    def deliver(number: int) -> None:
        source = Source(target, f"s{number}")
        source.load(ACCOUNTS, ("0", "first"))
        for at in range(1, 20):
            source.change(ACCOUNTS, ("c", str(at), "x"), ("d", str(at - 1)))

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(deliver, range(6)))
    for number in range(6):
        assert ods.rows(f"s{number}.accounts") == ["(19,x)"]
    (sessions,) = ods.connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'catchment'"
    ).fetchone() or (0,)
    assert sessions <= 3


def test_several_processes_make_the_ods_ready_at_the_same_time(ods: Ods) -> None:
    targets = [OdsTarget(ods.dsn, {}) for _ in range(4)]
    start = threading.Barrier(4)

    def first_use(target: OdsTarget) -> Frontier | None:
        start.wait()
        return target.frontier("s0")

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(first_use, targets)) == [None] * 4
    for target in targets:
        target.close()


def test_two_deliveries_of_the_same_source_do_not_double_anything(ods: Ods, target: OdsTarget) -> None:
    facts = table("facts", "n int4", key=())
    source = Source(target, "s0")
    source.load(facts)
    batches = [source.batch(source.rows(facts, [("c", str(n))])) for n in range(30)]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: [target.apply("s0", batches[: at + 1]) for at in range(30)], range(2)))
    assert ods.one("SELECT array_agg(n ORDER BY n)::text FROM s0.facts") == f"{{{','.join(map(str, range(30)))}}}"


def test_a_connection_that_is_killed_leaves_nothing_half_done(ods: Ods, target: OdsTarget) -> None:
    source = Source(target, "s0")
    source.load(ACCOUNTS, ("1", "ann"))
    before = target.frontier("s0")
    # More than one flush, so that rows have been written when the connection goes.
    many = source.batch(source.rows(ACCOUNTS, [("c", str(n), "x") for n in range(10, 70_000)]), ends=False)
    last = source.batch(source.rows(ACCOUNTS, [("d", "1")]))

    def cut() -> Iterator[tuple[Frontier, Batch]]:
        yield many
        killed = ods.connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'catchment'"
        ).fetchall()
        assert killed
        yield last

    with pytest.raises(TargetUnreachable) as caught:
        target.apply("s0", cut())
    assert caught.value.retry
    assert caught.value.source == "s0"
    assert ods.rows("s0.accounts") == ["(1,ann)"]
    assert target.frontier("s0") == before
    source.apply(many, last)
    assert ods.one("SELECT count(*) FROM s0.accounts") == 69_990


@pytest.mark.parametrize("asked", [False, True])
def test_promise_1_what_a_crash_of_the_ods_takes_back_is_delivered_again(
    private_cluster_factory: Callable[..., Cluster], asked: bool
) -> None:
    server = private_cluster_factory()
    with psycopg.connect(server.dsn()) as admin:
        ((wal_writer,),) = admin.execute("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'").fetchall()
    target = OdsTarget(server.dsn(), {"s0": "s0"})
    source = Source(target, "s0")
    source.load(ACCOUNTS, ("1", "ann"))
    more = [source.batch(source.rows(ACCOUNTS, [("c", str(n), "x")])) for n in range(2, 6)]
    os.kill(wal_writer, signal.SIGSTOP)  # only a commit that waits for it brings anything to the disk
    target.apply("s0", more[:1], durable=False)
    target.apply("s0", [])
    for batch in more[1:-1]:
        target.apply("s0", [batch], durable=False)
    server.kill()
    server.start()
    with psycopg.connect(server.dsn()) as admin:
        assert admin.execute("SELECT count(*) FROM s0.accounts").fetchone() == (2,)
    with pytest.raises(TargetUnreachable):
        target.frontier("s0")  # on a connection of before
    if not asked:
        with pytest.raises(TargetWentBack):
            target.apply("s0", more[-1:], durable=False)
    frontier = target.frontier("s0")
    assert frontier == more[0][0]
    target.apply("s0", more)
    assert target.out_of_date("s0") == {}
    with psycopg.connect(server.dsn()) as admin:
        assert admin.execute("SELECT count(*) FROM s0.accounts").fetchone() == (5,)
    target.close()


def test_what_takes_long_ends_when_its_hub_is_gone(ods: Ods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_LOOK_FOR_CLIENT", "100ms")
    connection = session.Session.open(ods.dsn, of_target()).connection
    connection.pgconn.send_query(b"SELECT pg_sleep(600)")
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND query LIKE '%%pg_sleep%%'"
    pid = connection.info.backend_pid
    eventually(lambda: ods.one(query, pid) == 1, "the statement")
    connection.close()
    eventually(lambda: ods.one(query, pid) == 0, "its end")


def test_an_error_in_the_middle_leaves_nothing_half_done(ods: Ods, target: OdsTarget) -> None:
    source = Source(target, "s0")
    source.load(ACCOUNTS, ("1", "ann"))
    with pytest.raises(TableRefused) as caught:
        source.change(ACCOUNTS, ("d", "1"), ("c", "canary", "x"))
    assert caught.value.table == "public.accounts"
    assert "canary" not in str(caught.value)
    assert ods.rows("s0.accounts") == ["(1,ann)"]


def test_a_log_that_breaks_while_it_is_read_leaves_nothing_half_done(ods: Ods, target: OdsTarget) -> None:
    source = Source(target, "s0")
    source.load(ACCOUNTS)
    first = source.batch(source.rows(ACCOUNTS, [("c", "1", "ann")]))

    def broken() -> Iterator[tuple[Frontier, Batch]]:
        yield first
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        target.apply("s0", broken())
    assert ods.rows("s0.accounts") == []
    source.apply(first)
    assert ods.rows("s0.accounts") == ["(1,ann)"]


def test_a_missing_privilege_is_named_with_the_grant_that_helps(ods: Ods) -> None:
    role = "clerk_" + str(ods.one("SELECT current_database()"))
    ods.execute(f"CREATE ROLE {role} LOGIN")
    target = OdsTarget(f"{ods.dsn} user={role}", {})
    with pytest.raises(TargetRefused, match=f'GRANT CREATE ON DATABASE "ods_[0-9]+" TO "{role}"'):
        target.frontier("s0")
    ods.execute(f"DROP ROLE {role}")


def test_a_place_that_a_table_cannot_have_stops_it_alone(ods: Ods, target: OdsTarget) -> None:
    source = Source(target, "s0")
    source.load(ACCOUNTS, ("1", "ann"))
    ods.execute("CREATE TABLE s0.people (x int)")
    cut, taken, free = table("t", "id int4", schema="é" * 31), table("people", "id int4"), table("places", "id int4")
    begun = RefillStarted("r1", (cut, taken, free), ("ods",))
    source.apply(source.batch(begun, *(source.rows(shape, [("r", "1")], "r1") for shape in (cut, taken, free))))
    source.apply(
        source.batch(RefillFinished("r1"), *(source.rows(shape, [("c", "2")]) for shape in (cut, taken, free)))
    )
    assert ods.rows("s0.places") == ["(1)", "(2)"]
    stopped = source.out_of_date()
    assert "longer than 63 bytes" in str(stopped.pop(str(cut)))
    assert "rename or drop it, then `catchment backfill s0 public.people`" in str(stopped.pop("public.people"))
    assert stopped == {}
    ods.execute("ALTER TABLE s0.people RENAME TO somebodys")
    source.load(taken, ("1",), ("2",))
    assert ods.rows("s0.people") == ["(1)", "(2)"]
    assert list(source.out_of_date()) == [str(cut)]


def test_an_ods_that_cannot_hold_every_character_is_refused(
    database_factory: Callable[..., str], ods_cluster: Cluster
) -> None:
    dsn = database_factory(ods_cluster, "ods", "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    with pytest.raises(TargetRefused, match="ENCODING 'UTF8'"):
        OdsTarget(dsn, {}).frontier("s0")


def test_a_transaction_left_open_by_a_reader_delays_a_new_column_only(
    ods: Ods, target: OdsTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(altering, "_IN_LINE", altering._IN_LINE.replace("5s", "100ms"))
    source = Source(target, "s0")
    source.load(ACCOUNTS, ("1", "ann"))
    wider = reshaped(ACCOUNTS, *ACCOUNTS.columns, "note text")
    with psycopg.connect(ods.dsn) as reader:
        reader.execute("SELECT FROM s0.accounts")
        source.change(ACCOUNTS, ("u", "1", "anne"))
        assert ods.rows("s0.accounts") == ["(1,anne)"]
        told = source.batch(SchemaChanged(wider), source.rows(wider, [("u", "1", "anne", "n")]))
        with pytest.raises(TargetUnreachable) as caught:
            source.apply(told)
        assert caught.value.retry
        assert caught.value.table == "public.accounts"
    source.apply(told)
    assert ods.rows("s0.accounts") == ["(1,anne,n)"]


def test_more_tables_than_a_session_keeps_stagings_for(ods: Ods, target: OdsTarget) -> None:
    source = Source(target, "s0")
    tables = [table(f"t{number}", "id int4") for number in range(MOST_STAGINGS + 10)]
    started = RefillStarted("r1", tuple(tables), ("ods",))
    source.apply(source.batch(started, *(source.rows(shape, [("r", "1")], "r1") for shape in tables)))
    source.finish("r1")
    source.apply(source.batch(*(source.rows(shape, [("u", "1"), ("c", "2")]) for shape in tables)))
    for shape in (tables[0], tables[-1]):
        assert ods.rows(f"s0.{shape.name}") == ["(1)", "(2)"]


def test_sources_do_not_take_each_others_stagings_away(
    ods: Ods, target: OdsTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MOST_STAGINGS", 8)
    sources = [Source(target, name) for name in ("s0", "s1")]
    tables = [table(f"t{number}", "id int4") for number in range(6)]
    for source in sources:
        started = RefillStarted("r1", tuple(tables), ("ods",))
        source.apply(source.batch(started))
        source.finish("r1")
    stagings = "SELECT array_agg(oid ORDER BY oid)::text FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'"
    made = []
    for value in range(3):
        for source in sources:
            source.apply(source.batch(*(source.rows(shape, [("c", str(value))]) for shape in tables)))
        made.append(ods.one(stagings))
    assert made[0] == made[1] == made[2]


def test_what_is_staged_in_idle_sessions_does_not_use_up_the_numbers_of_transactions(
    ods: Ods, target: OdsTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Source(target, "s0"), Source(target, "s1")
    first.load(ACCOUNTS)
    second.load(ACCOUNTS)

    def meanwhile() -> Iterator[tuple[Frontier, Batch]]:
        yield first.batch(first.rows(ACCOUNTS, [("c", "1", "ann")]))
        second.change(ACCOUNTS, ("c", "1", "bob"))

    target.apply("s0", meanwhile())
    sessions = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'catchment' AND datname = current_database()"
    )
    assert ods.one(sessions) == 2
    ods.execute("DO 'BEGIN FOR i IN 1..1000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END'")
    monkeypatch.setattr(pool, "_OLDEST", 0.0)
    first.change(ACCOUNTS, ("d", "1"))
    eventually(lambda: ods.one(sessions) == 1, "the end of sessions that are old")
    oldest = ods.one("SELECT max(age(relfrozenxid)) FROM pg_class WHERE relpersistence = 't' AND relfrozenxid <> '0'")
    assert isinstance(oldest, int)
    assert oldest < 1000


def test_more_statements_than_a_session_keeps(ods: Ods, target: OdsTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = table("notes", "id int4", "a text", "b text", "c text")
    for most in range(1, 8):
        monkeypatch.setattr(session, "_MOST_STATEMENTS", most)
        source = Source(target, f"s{most % 6}")
        source.load(shape, ("1", "a", "b", "c"), ("2", "a", "b", "c"))
        source.change(shape, ("u", "1", ..., "b2", "c"), ("b", "2"), ("u", "3", ..., "b", "c"))
        source.change(shape, ("u", "1", "a2", ..., ...), ("b", "3"), ("u", "4", "a", "b", ...), ("d", "99"))
        assert ods.rows(f"s{most % 6}.notes") == ["(1,a2,b2,c)", "(4,a,b,c)"]
        target.forget(source.name)
