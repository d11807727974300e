"""The replay of a feed, from lines written by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count

import pytest
from feed_replay import Row, replay

ACCOUNTS, VISITS = "public.accounts", "public.visits"
KEYS = {ACCOUNTS: ["id"], VISITS: []}

_seq = count(1)


def change(op: str, unchanged: Sequence[str] = (), table: str = ACCOUNTS, **row: str | None) -> bytes:
    place = {"seq": next(_seq), "lsn": "0/16B3748", "xid": 730, "committed_at": "2026-11-23T04:05:06.000000Z"}
    told = {"source": "orders", "table": table, "op": op, **place, "row": row, "unchanged": list(unchanged)}
    return json.dumps(told).encode() + b"\n"


def visit(op: str, unchanged: Sequence[str] = (), **row: str | None) -> bytes:
    return change(op, unchanged, VISITS, **row)


def event(name: str, **fields: object) -> bytes:
    return json.dumps({"source": "orders", "event": name, **fields}).encode() + b"\n"


def reshaped(before: str, table: str, were: dict[str, str], missing: dict[str, str | None]) -> bytes:
    columns = [*were, *missing]
    return event("schema_changed", table=table, columns=columns, before=before, were=were, missing=missing)


def started(refill: str, *tables: str) -> bytes:
    return event("refill_started", refill=refill, tables=tables, targets=["feed"])


def finished(refill: str) -> bytes:
    return event("refill_finished", refill=refill)


def accounts(*lines: bytes) -> list[Row]:
    return replay(lines, KEYS)[ACCOUNTS]


def visits(*lines: bytes) -> list[Row]:
    return sorted(replay(lines, KEYS)[VISITS], key=repr)


def test_rows_are_created_updated_and_deleted_by_key() -> None:
    lines = [
        change("c", id="1", note="one"),
        change("c", id="2", note=None),
        change("u", id="1", note="uno"),
        change("d", id="2"),
        change("d", id="9"),
    ]
    assert accounts(*lines) == [{"id": "1", "note": "uno"}]


def test_an_update_keeps_what_was_not_sent() -> None:
    lines = [change("c", id="1", note="one", long="x" * 9000), change("u", ["long"], id="1", note="uno")]
    assert accounts(*lines) == [{"id": "1", "note": "uno", "long": "x" * 9000}]


def test_keys_change_in_a_chain_and_keep_what_was_not_sent() -> None:
    lines = [
        change("c", id="1", long="one"),
        change("c", id="2", long="two"),
        change("b", id="2"),
        change("u", ["long"], id="3"),
        change("b", id="1"),
        change("u", ["long"], id="2"),
    ]
    assert accounts(*lines) == [{"id": "3", "long": "two"}, {"id": "2", "long": "one"}]


def test_the_old_row_under_full_gives_what_was_not_sent() -> None:
    lines = [change("b", id="1", note="one", long="x"), change("u", ["long"], id="1", note="uno")]
    assert accounts(*lines) == [{"id": "1", "note": "uno", "long": "x"}]


@pytest.mark.parametrize("op", ["c", "u"])
def test_an_incomplete_row_that_is_not_known_is_left_to_the_line_that_reads_it_again(op: str) -> None:
    incomplete = change(op, ["long"], id="1", note="uno")
    assert accounts(incomplete) == []
    assert accounts(incomplete, change("r", id="1", note="uno", long="x")) == [{"id": "1", "note": "uno", "long": "x"}]


def test_a_table_without_a_key_is_a_bag() -> None:
    lines = [
        visit("c", page="a", by=None),
        visit("c", page="a", by=None),
        visit("c", page="a", by=""),
        visit("d", page="a", by=None),
        visit("b", page="a", by=""),
        visit("u", ["by"], page="b"),
    ]
    assert visits(*lines) == [{"page": "a", "by": None}, {"page": "b", "by": ""}]


def test_truncated_empties_all_tables_that_it_names() -> None:
    filled = [change("c", id="1"), visit("c", page="a")]
    assert replay([*filled, event("truncated", tables=[ACCOUNTS])], KEYS) == {ACCOUNTS: [], VISITS: [{"page": "a"}]}


def test_a_new_shape_adds_columns_as_null_and_drops_others() -> None:
    lines = [
        change("c", id="1", note="one"),
        reshaped(ACCOUNTS, ACCOUNTS, {"id": "id", "said": "note"}, {"paid": "f", "by": None}),
        change("c", id="2", said="two", paid="t", by="me"),
    ]
    assert accounts(*lines) == [
        {"id": "1", "said": "one", "paid": "f", "by": None},
        {"id": "2", "said": "two", "paid": "t", "by": "me"},
    ]


def test_tables_swap_their_names() -> None:
    lines = [
        change("c", id="1", note="one"),
        visit("c", page="a"),
        reshaped(ACCOUNTS, VISITS, {"id": "id", "note": "note"}, {}),
        reshaped(VISITS, ACCOUNTS, {"page": "page", "by": "by"}, {}),
    ]
    assert replay(lines, {}) == {ACCOUNTS: [{"page": "a", "by": None}], VISITS: [{"id": "1", "note": "one"}]}


def test_a_refill_tells_all_rows_anew_and_changes_over_at_its_end() -> None:
    lines = [
        change("c", id="1", note="void"),
        visit("c", page="void"),
        started("1", ACCOUNTS),
        change("r", id="2", note="two"),
        change("r", id="3", note="three"),
        started("1", VISITS),
        visit("r", page="a"),
        visit("c", page="a"),
        change("u", id="3", note="tres"),
        change("d", id="2"),
    ]
    known = [{"id": "1", "note": "void"}, {"id": "3", "note": "tres"}]
    assert replay(lines, KEYS) == {ACCOUNTS: known, VISITS: [{"page": "void"}, {"page": "a"}]}
    assert replay([*lines, finished("1")], KEYS) == {
        ACCOUNTS: [{"id": "3", "note": "tres"}],
        VISITS: [{"page": "a"}, {"page": "a"}],
    }


def test_a_refill_that_begins_again_begins_empty() -> None:
    lines = [started("1", VISITS), visit("r", page="a"), started("1", VISITS), visit("r", page="a"), finished("1")]
    assert replay(lines[:-1], KEYS) == {}
    assert visits(*lines) == [{"page": "a"}]


def test_truncated_empties_what_a_refill_has_told_so_far() -> None:
    lines = [started("1", VISITS), visit("r", page="a"), event("truncated", tables=[VISITS]), finished("1")]
    assert visits(*lines) == []


def test_the_end_of_another_refill_changes_nothing() -> None:
    lines = [change("c", id="1"), started("2", ACCOUNTS), finished("1")]
    assert accounts(*lines) == [{"id": "1"}]


def test_messages_are_passed_over() -> None:
    assert accounts(change("c", id="1"), event("message", prefix="p", content="x", seq=9)) == [{"id": "1"}]
