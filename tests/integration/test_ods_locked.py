"""Somebody has a lock in the ODS: he is named, the others go on, and so does all when he is gone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from ods_batches import Ods, Source, reshaped, table
from running_hub import eventually

from catchment.model.batch import SchemaChanged
from catchment.model.errors import TargetUnreachable
from catchment.targets.ods import altering, session
from catchment.targets.ods.target import OdsTarget

pytestmark = pytest.mark.server_versions

PLACES = table("places", "id int4")
ACCOUNTS = table("accounts", "id int4", "name text")
SOME_SECONDS = "-c idle_in_transaction_session_timeout=15s"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((session, "_SETTINGS"), (altering, "_IN_LINE")):
        monkeypatch.setattr(module, name, getattr(module, name).replace(session.LOCK_TIMEOUT, "200ms"))


@pytest.fixture
def person(ods: Ods) -> Iterator[psycopg.Connection]:
    """Whoever waits for him without end waits for some seconds."""
    with psycopg.connect(ods.dsn, options=SOME_SECONDS) as person:
        yield person
        person.rollback()


@pytest.mark.parametrize(
    "statement",
    [
        "LOCK TABLE orders.places IN SHARE MODE",
        "UPDATE orders.places SET id = id",
        "SELECT FROM orders.places FOR UPDATE",
        "INSERT INTO orders.places VALUES (2)",
    ],
)
def test_promise_5_who_keeps_changes_out_of_a_table_is_named(
    ods: Ods, source: Source, person: psycopg.Connection, statement: str
) -> None:
    source.load(PLACES, ("1",))
    source.load(ACCOUNTS, ("1", "ann"))
    told = source.batch(source.rows(ACCOUNTS, [("u", "1", "anne")]), source.rows(PLACES, [("d", "1"), ("c", "2")]))
    with psycopg.connect(ods.dsn) as reader:
        reader.execute("SELECT FROM orders.places")
        person.execute(statement)
        with pytest.raises(TargetUnreachable) as caught:
            source.apply(told)
    assert caught.value.retry
    assert f'(pid {person.info.backend_pid}) holds "orders"."places"' in str(caught.value)
    assert ods.rows("orders.accounts") == ["(1,ann)"]
    Source(source.target, "stock").load(PLACES, ("7",))
    person.rollback()
    source.apply(told)
    assert ods.rows("orders.accounts") == ["(1,anne)"]
    assert ods.rows("orders.places") == ["(2)"]


def test_promise_5_who_waits_for_a_table_is_named_when_changes_wait_behind_him(
    ods: Ods, source: Source, person: psycopg.Connection
) -> None:
    source.load(PLACES, ("1",))
    told = source.batch(source.rows(PLACES, [("c", "2")]))
    with psycopg.connect(ods.dsn, options=SOME_SECONDS) as reader, ThreadPoolExecutor(1) as threads:
        reader.execute("SELECT FROM orders.places")
        altered = threads.submit(person.execute, "LOCK TABLE orders.places")
        waits = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
        eventually(lambda: ods.one(waits, person.info.backend_pid) == 1, "him to wait")
        with pytest.raises(TargetUnreachable) as caught:
            source.apply(told)
        assert f'(pid {person.info.backend_pid}) waits for "orders"."places"' in str(caught.value)
        reader.rollback()
        altered.result()
    person.rollback()
    source.apply(told)
    assert ods.rows("orders.places") == ["(1)", "(2)"]


def test_promise_5_nor_is_a_lock_waited_for_without_end_when_a_shape_has_changed_before(
    source: Source, person: psycopg.Connection
) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    source.load(PLACES, ("1",))
    changed = SchemaChanged(reshaped(ACCOUNTS, *ACCOUNTS.columns, "note text"), ACCOUNTS)
    person.execute("LOCK TABLE orders.places IN SHARE MODE")
    with pytest.raises(TargetUnreachable, match=rf"\(pid {person.info.backend_pid}\) holds"):
        source.apply(source.batch(changed, source.rows(PLACES, [("c", "2")])))


def test_promise_5_a_reader_of_what_is_to_be_dropped_is_named(
    ods: Ods, source: Source, person: psycopg.Connection
) -> None:
    source.load(PLACES, ("1",))
    person.execute("SELECT FROM orders.places")
    with pytest.raises(TargetUnreachable, match=rf"\(pid {person.info.backend_pid}\) holds \"orders\"\.\"places\""):
        source.target.forget("orders")
    assert ods.rows("orders.places") == ["(1)"]
    person.rollback()
    source.target.forget("orders")
    assert not ods.exists("orders.places")


def test_promise_5_another_session_for_the_same_source_is_named(
    ods: Ods, source: Source, person: psycopg.Connection
) -> None:
    source.load(PLACES, ("1",))
    other = OdsTarget(ods.dsn, {"orders": "orders"})
    told = source.batch(source.rows(PLACES, [("c", "2")]))
    person.execute("SELECT pg_advisory_xact_lock(%s, hashtext('orders'))", (session.LOCK,))
    with pytest.raises(TargetUnreachable, match=rf"\(pid {person.info.backend_pid}\) is at work on this source"):
        other.apply("orders", [told])
    person.rollback()
    other.apply("orders", [told])
    assert ods.rows("orders.places") == ["(1)", "(2)"]
    other.close()
