"""The key of a table that nobody reads yet is built when it is needed first."""

from __future__ import annotations

import pytest
from ods_batches import Change, Ods, Source, reshaped, table

from catchment.model.batch import SchemaChanged
from catchment.model.errors import TableRefused

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


def test_rows_that_are_one_in_the_ods_stop_their_table_without_their_values(ods: Ods, source: Source) -> None:
    source.begin("r1", EVENTS, ("2026-11-30", "1", "{}"))
    source.begin("r1", ACCOUNTS, ("1", "secret"), ("1", "canary"))
    with pytest.raises(TableRefused, match="several of its rows have one key in the ODS") as refused:
        source.finish("r1")
    assert "catchment check orders" in str(refused.value)
    assert "secret" not in str(refused.value)
    source.offset -= 1
    source.finish("r1")
    assert ods.rows("orders.events") == ["(2026-11-30,1,{})"]
    assert "several of its rows" in (source.out_of_date()["public.accounts"] or "")
