"""The key of a table that nobody reads yet is built when it is needed first."""

from __future__ import annotations

import psycopg
import pytest
from ods_batches import Change, Ods, Source, reshaped, table

from catchment.model.batch import RefillStarted, SchemaChanged
from catchment.model.errors import TableRefused, TargetUnreachable
from catchment.targets.ods import changeover
from catchment.targets.ods.session import LOCK

pytestmark = pytest.mark.server_versions

ACCOUNTS = table("accounts", "id int4", "name text")
EVENTS = table("events", "day date", "id int4", "told jsonb", key=("day", "id"))
KEY_OF_SHADOWS = """
SELECT array_agg(a.attname::text ORDER BY a.attnum)
FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey) WHERE c.relname LIKE 'shadow%'
"""


def read(source: Source, *rows: Change) -> None:
    """More of what the refill ``r1`` reads."""
    source.apply(source.batch(source.rows(ACCOUNTS, [("r", *row) for row in rows], "r1")))


def test_rows_of_a_first_load_wait_for_their_key_until_it_is_needed(ods: Ods, source: Source) -> None:
    source.begin("r1", ACCOUNTS, ("1", "ann"))
    read(source, ("2", "bob"))
    assert ods.one(KEY_OF_SHADOWS) is None
    source.change(ACCOUNTS, ("u", "1", "anne"))
    assert ods.one(KEY_OF_SHADOWS) == ["id"]
    read(source, ("1", "anne"), ("3", "cid"))
    source.change(ACCOUNTS, ("d", "2"))
    source.finish("r1")
    assert ods.rows("orders.accounts") == ["(1,anne)", "(3,cid)"]


def test_a_refill_that_begins_with_changes_behind_it(ods: Ods, source: Source) -> None:
    began = RefillStarted("r1", (ACCOUNTS,), ("ods",))
    read = source.rows(ACCOUNTS, [("r", "1", "ann")], "r1")
    source.apply(source.batch(began, read, source.rows(ACCOUNTS, [("u", "1", "anne"), ("c", "2", "bob")])))
    source.finish("r1")
    assert ods.rows("orders.accounts") == ["(1,anne)", "(2,bob)"]


def test_a_table_that_comes_to_others_has_its_key_from_the_beginning(ods: Ods, source: Source) -> None:
    source.load(EVENTS, ("2026-11-30", "1", "{}"))
    source.begin("r1", ACCOUNTS, ("1", "ann"))
    assert ods.one(KEY_OF_SHADOWS) == ["id"]
    source.finish("r1")
    assert ods.rows("orders.accounts") == ["(1,ann)"]


def test_rows_without_a_key_yet_take_part_in_what_becomes_of_their_table(ods: Ods, source: Source) -> None:
    source.begin("r1", ACCOUNTS, ("1", "ann"))
    source.truncate(ACCOUNTS)
    read(source, ("1", "bob"))
    wider = reshaped(ACCOUNTS, *ACCOUNTS.columns, "age int4")
    source.happen(SchemaChanged(wider, source.place()))
    source.apply(source.batch(source.rows(wider, [("r", "2", "cid", "3")], "r1")))
    source.finish("r1")
    assert ods.rows("orders.accounts") == ["(1,bob,)", "(2,cid,3)"]


def test_promise_1_rows_that_a_killed_collector_told_twice_are_there_once(ods: Ods, source: Source) -> None:
    told = [("2026-11-30", "1", "{}"), ("2026-11-30", "2", None), ("2026-12-01", "1", "{}")]
    source.begin("r1", EVENTS, *told[:2])
    for rows in (told[1:], told):
        source.apply(source.batch(source.rows(EVENTS, [("r", *row) for row in rows], "r1")))
    source.finish("r1")
    assert ods.rows("orders.events") == ["(2026-11-30,1,{})", "(2026-11-30,2,)", "(2026-12-01,1,{})"]


def test_promise_3_no_reader_sees_a_row_twice_that_was_told_twice(
    ods: Ods, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changeover, "_PATIENCE", 0.0)
    source.begin("r1", ACCOUNTS, ("1", "ann"))
    read(source, ("1", "ann"))
    with psycopg.connect(ods.dsn) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 1")
        with pytest.raises(TargetUnreachable, match="older than the tables that are to appear"):
            source.finish("r1")
        assert reader.execute("SELECT to_regclass('orders.accounts')").fetchone() == (None,)
    source.offset -= 1
    source.finish("r1")
    assert ods.rows("orders.accounts") == ["(1,ann)"]


def test_what_builds_a_key_for_another_source_is_not_waited_for(ods: Ods, source: Source) -> None:
    source.begin("r1", ACCOUNTS, ("1", "ann"))
    with psycopg.connect(ods.dsn) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT pg_advisory_xact_lock(%s, hashtext('payments'))", (LOCK,))
        source.finish("r1")
    assert ods.rows("orders.accounts") == ["(1,ann)"]


def test_rows_that_are_one_in_the_ods_stop_their_table_without_their_values(ods: Ods, source: Source) -> None:
    source.begin("r1", ACCOUNTS, ("1", "ann"))
    source.begin("r1", EVENTS, ("2026-11-30", "1", '"secret"'), ("2026-11-30", "1", '"canary"'))
    with pytest.raises(TableRefused, match="several of its rows have one key in the ODS") as refused:
        source.finish("r1")
    assert "catchment check orders" in str(refused.value)
    assert "secret" not in str(refused.value)
    assert ods.one(KEY_OF_SHADOWS) == ["id"]  # what was built before is not lost
    source.offset -= 1
    source.finish("r1")
    assert ods.rows("orders.accounts") == ["(1,ann)"]
    assert "several of its rows" in (source.out_of_date()["public.events"] or "")
