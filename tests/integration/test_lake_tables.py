"""What readers see of the lake's tables: refills, truncations, other shapes, gaps."""

from __future__ import annotations

import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import duckdb
import polars
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from lake_source import LakeSource, history, record, rows, tables
from ods_batches import NOON, reshaped, table

import catchment.lake
from catchment.model.batch import Message, RefillFinished, RefillStarted, SchemaChanged, Truncated
from catchment.model.errors import TargetRefused
from catchment.model.lsn import Lsn
from catchment.model.table import Column
from catchment.targets.lake import LakeTarget, checkpoint
from catchment.targets.lake import transaction as lake_transaction
from catchment.targets.lake.local import LocalStore

ACCOUNTS = table("accounts", "id int4", "name text")
ORDERS = table("orders", "id int4", "total numeric%655366", schema="sales")
FACTS = table("facts", "n int4", key=())


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LakeSource:
    monkeypatch.setattr(os, "fsync", os.fstat)
    return LakeSource(tmp_path)


def test_a_first_load_appears_whole_with_what_the_stream_brought_meanwhile(source: LakeSource) -> None:
    source.begin("r1", ACCOUNTS, ("1", "ann"), ("2", "bob"))
    source.begin("r1", ORDERS, ("1", "1.50"))
    source.change(ACCOUNTS, ("u", "1", "anne"), ("c", "3", "cid"))
    assert tables(source.root) == {}
    assert not (source.root / "lake" / "orders" / "public.accounts" / "_delta_log").exists()
    source.finish("r1")
    assert tables(source.root) == {
        "public.accounts": ["(1, 'anne')", "(2, 'bob')", "(3, 'cid')"],
        "sales.orders": ["(1, Decimal('1.50'))"],
    }
    source.change(ACCOUNTS, ("d", "1"))
    assert tables(source.root)["public.accounts"] == ["(2, 'bob')", "(3, 'cid')"]


def test_rows_of_the_refill_and_of_the_stream_in_one_batch_are_taken_by_their_order(source: LakeSource) -> None:
    source.begin("r1", ACCOUNTS)
    earlier = source.rows(ACCOUNTS, [("c", "1", "old"), ("d", "2")])
    read = source.rows(ACCOUNTS, [("r", "1", "read"), ("r", "2", "read")], "r1")
    later = source.rows(ACCOUNTS, [("u", "2", "new")])
    source.apply(source.batch(later, read, earlier))
    source.finish("r1")
    assert tables(source.root)["public.accounts"] == ["(1, 'read')", "(2, 'new')"]


def test_a_live_table_takes_changes_while_it_is_refilled_and_changes_over_in_one_version(source: LakeSource) -> None:
    source.load(ACCOUNTS, ("1", "ann"), ("9", "gone"))
    source.begin("r2", ACCOUNTS, ("1", "ann"))
    source.change(ACCOUNTS, ("c", "2", "bob"))
    assert tables(source.root)["public.accounts"] == ["(1, 'ann')", "(2, 'bob')", "(9, 'gone')"]
    source.truncate(ACCOUNTS)
    source.change(ACCOUNTS, ("c", "3", "cid"), ("c", "4", "dan"))
    source.change(ACCOUNTS, ("d", "4"))
    assert tables(source.root)["public.accounts"] == ["(3, 'cid')"]
    before = DeltaTable(str(source.root / "lake" / "orders" / "public.accounts")).version()
    source.finish("r2")
    assert tables(source.root)["public.accounts"] == ["(3, 'cid')"]
    assert DeltaTable(str(source.root / "lake" / "orders" / "public.accounts")).version() == before + 1
    source.change(ACCOUNTS, ("u", "3", "cidd"))
    source.again()
    source.change(ACCOUNTS, ("u", "3", "ciddd"), ("c", "5", "eve"))
    assert tables(source.root)["public.accounts"] == ["(3, 'ciddd')", "(5, 'eve')"]


def test_a_refill_that_starts_again_starts_empty_and_one_that_was_replaced_is_ignored(source: LakeSource) -> None:
    source.begin("r1", ACCOUNTS, ("1", "ann"), ("2", "bob"))
    source.begin("r1", ACCOUNTS, ("2", "bob"))
    source.begin("r2", ORDERS, ("1", "1.00"))
    source.begin("r3", ORDERS, ("2", "2.00"))
    source.finish("r1")
    source.finish("r2")
    assert tables(source.root) == {"public.accounts": ["(2, 'bob')"]}
    source.finish("r3")
    assert tables(source.root)["sales.orders"] == ["(2, Decimal('2.00'))"]


@pytest.mark.parametrize("gap", ["offset", "log"])
def test_after_a_gap_tables_stay_as_they_are_until_a_refill(source: LakeSource, gap: str) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    source.begin("r2", ACCOUNTS, ("1", "half"))
    if gap == "offset":
        source.offset += 5
    else:
        source.log = uuid4()
    source.change(ACCOUNTS, ("u", "1", "anne"), ("c", "2", "bob"))
    source.truncate(ACCOUNTS)
    source.finish("r2")
    assert tables(source.root)["public.accounts"] == ["(1, 'ann')"]
    source.begin("r3", ACCOUNTS, ("2", "bob"))
    source.change(ACCOUNTS, ("c", "3", "cid"))
    assert tables(source.root)["public.accounts"] == ["(1, 'ann')"]
    source.finish("r3")
    source.change(ACCOUNTS, ("c", "4", "dan"))
    assert tables(source.root)["public.accounts"] == ["(2, 'bob')", "(3, 'cid')", "(4, 'dan')"]


def test_a_truncation_empties_the_table_and_the_history_says_so(source: LakeSource) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    source.load(FACTS, ("1",), ("1",))
    source.apply(source.batch(Truncated((ACCOUNTS, FACTS), source.place()), source.rows(ACCOUNTS, [("c", "2", "bob")])))
    assert tables(source.root) == {"public.accounts": ["(2, 'bob')"], "public.facts": []}
    told = history(source.root)
    assert [change["_op"] for change in told] == ["r", "t", "c"]
    assert [change["id"] for change in told] == [1, None, 2]


def test_the_history_has_every_change_with_what_is_known_of_it(source: LakeSource) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    source.apply(source.batch(source.rows(ACCOUNTS, [("b", "1"), ("u", "2", ...), ("d", "2")])))
    told = [(each["_op"], each["id"], each["name"], each["_unchanged"]) for each in history(source.root)]
    assert told == [("r", 1, "ann", None), ("b", 1, None, None), ("u", 2, None, ["name"]), ("d", 2, None, None)]
    assert {(str(each["_day"]), each["_xid"], str(each["_committed_at"])) for each in history(source.root)} == {
        ("2026-11-23", 700, "2026-11-23 12:00:00+00:00")
    }
    assert {each["_seq"] for each in history(source.root)} == {2, 4, 5, 6}


def test_added_and_dropped_columns_reach_the_table_by_metadata_alone_and_the_history_keeps_both(
    source: LakeSource,
) -> None:
    source.load(ACCOUNTS, ("1", "ann"), ("2", "bob"))
    wider = reshaped(ACCOUNTS, *ACCOUNTS.columns, "age int4")
    source.apply(source.batch(SchemaChanged(wider), source.rows(wider, [("u", "2", "bob", "7")])))
    assert tables(source.root)["public.accounts"] == ["(7, 2, 'bob')", "(None, 1, 'ann')"]
    narrower = reshaped(wider, wider.columns[0], wider.columns[2])
    source.apply(source.batch(SchemaChanged(narrower), source.rows(narrower, [("c", "3", "9")])))
    assert tables(source.root)["public.accounts"] == ["(7, 2)", "(9, 3)", "(None, 1)"]
    assert source.out_of_date() == {}
    assert [(each["id"], each["name"], each.get("age")) for each in history(source.root)] == [
        (1, "ann", None),
        (2, "bob", None),
        (2, "bob", 7),
        (3, None, 9),
    ]


def test_rows_without_a_key_are_found_by_the_columns_that_there_are(source: LakeSource) -> None:
    source.load(FACTS, ("1",), ("2",), ("2",))
    wider = reshaped(FACTS, *FACTS.columns, "v int4")
    source.apply(source.batch(SchemaChanged(wider), source.rows(wider, [("d", "2", None), ("c", "3", "4")])))
    assert tables(source.root)["public.facts"] == ["(1, None)", "(2, None)", "(3, 4)"]
    narrower = reshaped(wider, wider.columns[0])
    source.apply(source.batch(SchemaChanged(narrower), source.rows(narrower, [("d", "3"), ("d", "1")])))
    assert tables(source.root)["public.facts"] == ["(2,)"]


@pytest.mark.parametrize(
    "change",
    ["rename", "widen", "drop and add", "add with a default", "another key", "another name"],
)
def test_what_metadata_cannot_change_waits_for_a_refill_and_the_history_goes_on(
    source: LakeSource, change: str
) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    identity, name = ACCOUNTS.columns
    match change:
        case "rename":
            shape = reshaped(ACCOUNTS, identity, replace(name, name="title"))
        case "widen":
            shape = reshaped(ACCOUNTS, replace(identity, type_name="int8"), name)
        case "drop and add":
            source.happen(SchemaChanged(reshaped(ACCOUNTS, identity)))
            shape = reshaped(ACCOUNTS, identity, replace(name, number=3))
        case "add with a default":
            added = Column(3, "age", "pg_catalog", "int4", -1, nullable=True, missing="7")
            shape = reshaped(ACCOUNTS, identity, name, added)
        case "another key":
            shape = replace(ACCOUNTS, key=("name",), version=2)
        case _:
            shape = replace(ACCOUNTS, name="people", version=2)
    source.apply(source.batch(SchemaChanged(shape), source.rows(shape, [("c", "2", "bob")])))
    assert source.out_of_date() == {"public.accounts": None}
    assert tables(source.root)["public.accounts"][0].startswith("(1")
    source.load(shape, ("1", "ann"), ("2", "bob"))
    assert source.out_of_date() == {}
    found = tables(source.root)
    assert list(found) == [str(shape)]
    assert [row.replace("None, ", "") for row in found[str(shape)]] == ["(1, 'ann')", "(2, 'bob')"]
    assert len(history(source.root, table=str(shape))) == (3 if change == "another name" else 4)


def test_a_type_that_is_chosen_for_a_numeric_counts_from_its_next_refill_on(source: LakeSource) -> None:
    sums = table("sums", "id int4", "total numeric", "name text")
    source.again({"orders.public.sums.total": "decimal(6,2)", "orders.public.sums.name": "decimal(6,2)"})
    source.load(sums, ("1", "1.5", "1"), ("2", "12345.67", "x"), ("3", "7.1000000", "y"))
    source.change(sums, ("c", "4", "0.125", None), ("u", "1", "NaN", "1"))
    expected = ["('0.125', 4, None)", "('12345.67', 2, 'x')", "('NaN', 1, '1')", "(Decimal('7.10'), 3, 'y')"]
    path = source.root / "lake" / "orders" / "public.sums"
    read = polars.read_delta(str(path)).sort("id").to_dicts()
    exact = {row["id"]: dict(row["_exact"] or {}).get("total", row["total"]) for row in read}
    assert sorted(map(str, ((exact[row["id"]], row["id"], row["name"]) for row in read))) == expected
    source.again({"orders.public.sums.total": "decimal(10,3)"})
    source.change(sums, ("d", "2"), ("u", "4", "0.125", "z"))
    assert DeltaTable(str(path)).schema().to_arrow().field("total").type == pa.decimal128(6, 2)
    assert [(each["total"], each.get("total__2")) for each in history(source.root, table="public.sums")[-1:]] == [
        (None, Decimal("0.125"))
    ]
    source.load(sums, ("4", "0.1250", "z"))
    assert tables(source.root)["public.sums"] == ["(4, 'z', Decimal('0.125'))"]
    source.change(sums, ("u", "4", "8", "z"))
    assert tables(source.root)["public.sums"] == ["(4, 'z', Decimal('8.000'))"]


def test_a_shadow_whose_shape_changes_beyond_metadata_is_given_up(source: LakeSource) -> None:
    source.begin("r1", ACCOUNTS, ("1", "ann"))
    source.happen(SchemaChanged(reshaped(ACCOUNTS, replace(ACCOUNTS.columns[0], type_name="int8"))))
    source.finish("r1")
    assert tables(source.root) == {}


def test_a_table_made_anew_under_the_same_name_takes_its_place(source: LakeSource) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    anew = replace(ACCOUNTS, oid=99)
    source.load(anew, ("5", "eve"))
    assert tables(source.root) == {"public.accounts": ["(5, 'eve')"]}
    assert [entry["oid"] for entry in record(source.root)["tables"]] == [99]


def test_messages_change_nothing(source: LakeSource) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    before = tables(source.root)
    source.happen(Message("p", b"x", source.place()))
    assert tables(source.root) == before


def test_a_table_without_a_key_that_lacks_a_deleted_row_is_refused(source: LakeSource) -> None:
    source.load(FACTS, ("1",))
    remedy = "refill it: `catchment backfill orders public.facts`"
    with pytest.raises(TargetRefused, match=f"lacks rows that were deleted at the source; {remedy}"):
        source.change(FACTS, ("d", "2"))
    assert tables(source.root)["public.facts"] == ["(1,)"]


def test_what_somebody_else_made_stays_and_is_refused(source: LakeSource) -> None:
    place = source.root / "lake" / "orders" / "public.accounts"
    LakeTarget(LocalStore(source.root / "lake"), source.root / "other", {"stock": "orders"}).apply("stock", [])
    other = LakeSource(source.root, "stock")
    other.target = LakeTarget(LocalStore(source.root / "lake"), source.root / "other", {"stock": "orders"})  # type: ignore[assignment]
    other.load(ACCOUNTS, ("1", "ann"))
    with pytest.raises(TargetRefused, match="is already there and was not made by Catchment for this source"):
        source.load(ACCOUNTS, ("2", "bob"))
    assert rows(place) == ["(1, 'ann')"]


def test_a_table_that_somebody_removed_waits_for_a_refill(source: LakeSource) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    for file in (source.root / "lake" / "orders" / "public.accounts" / "_delta_log").iterdir():
        file.unlink()
    assert source.out_of_date() == {"public.accounts": None}


def test_a_transaction_larger_than_memory_is_written_in_parts_and_counts_at_its_end(
    source: LakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_transaction, "_MOST_ROWS", 2)
    source.load(ACCOUNTS, ("1", "ann"))
    before = record(source.root)
    parts = [
        source.batch(source.rows(ACCOUNTS, [("c", str(number), "x"), ("u", "1", str(number))]), ends=number == 5)
        for number in range(2, 6)
    ]
    source.apply(*parts)
    found = record(source.root)
    assert found["tables"][0]["version"] == before["tables"][0]["version"] + 4
    assert tables(source.root)["public.accounts"][0] == "(1, '5')"
    assert len(tables(source.root)["public.accounts"]) == 5


def test_promise_3_the_tables_of_any_frontier_agree_with_each_other(source: LakeSource) -> None:
    source.load(ACCOUNTS, ("1", "0"))
    source.load(FACTS, ("0",))
    for number in range(1, 6):
        rows = source.rows(ACCOUNTS, [("u", "1", str(number))]), source.rows(FACTS, [("c", str(number))])
        source.apply(source.batch(*rows))
    lake = catchment.lake.open(f"file://{source.root}/lake")
    assert lake.sources == ["orders"]
    for back in range(6):
        view = lake.at("orders", lsn=Lsn(source.offset * 100 - back * 100 + 50))
        assert view.frontier.offset == source.offset - back
        assert view["public.accounts"].to_arrow().column("name").to_pylist() == [str(5 - back)]
        facts = view["public.facts"].to_polars().collect()["n"].to_list()
        assert max(facts) == 5 - back
        assert view.histories["public.facts"].to_arrow().num_rows == len(facts) == 6 - back
    connection = duckdb.connect()
    relation = lake.at("orders", time=NOON)["public.facts"].to_duckdb(connection)
    assert relation.sum("n").fetchall() == [(15,)]
    with pytest.raises(TargetRefused, match="nothing of it at that place"):
        lake.at("orders", lsn="0/1")
    with pytest.raises(TargetRefused, match="nothing of it at that place"):
        lake.at("stock")


def test_two_writers_for_one_source_do_not_both_go_on(source: LakeSource) -> None:
    source.load(ACCOUNTS, ("1", "ann"))
    other = LakeSource(source.root)
    other.log, other.offset = source.log, source.offset
    one, two = (
        source.batch(source.rows(ACCOUNTS, [("c", "2", "b")])),
        other.batch(other.rows(ACCOUNTS, [("c", "2", "b")])),
    )
    source.apply(one)
    other.apply(two)
    assert tables(source.root)["public.accounts"] == ["(1, 'ann')", "(2, 'b')"]


def test_a_refills_end_and_the_rows_behind_it_can_stand_in_one_batch(source: LakeSource) -> None:
    source.begin("r1", ACCOUNTS, ("1", "ann"))
    source.apply(
        source.batch(RefillFinished("r1"), source.rows(ACCOUNTS, [("u", "1", "anne")])),
        source.batch(RefillStarted("r2", (ACCOUNTS,), ("lake",)), source.rows(ACCOUNTS, [("r", "7", "z")], "r2")),
    )
    assert tables(source.root)["public.accounts"] == ["(1, 'anne')"]


def test_many_small_commits_leave_few_files_checkpoints_and_the_same_rows(
    source: LakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_EVERY", 10)
    source.load(ACCOUNTS, ("0", "x"))
    for number in range(1, 60):
        changes = [("c", str(number), "x"), ("u", str(number // 2), f"{number}")]
        source.change(ACCOUNTS, *changes)
        source.target.tend("orders", 60)
        if number % 7 == 0:
            source.again()
    source.change(ACCOUNTS, *[("d", str(number)) for number in range(10)])
    path = source.root / "lake" / "orders" / "public.accounts"
    expected = [f"({number}, '{number * 2 + 1 if number < 30 else 'x'}')" for number in range(10, 60)]
    assert tables(source.root)["public.accounts"] == expected
    assert [each["_seq"] for each in history(source.root)] == sorted({each["_seq"] for each in history(source.root)})
    assert len(history(source.root)) == 1 + 59 * 2 + 10
    assert len(DeltaTable(str(path)).get_add_actions().column(0)) < 20
    assert len(DeltaTable(f"{path}.history").get_add_actions().column(0)) < 20
    for each in (path, Path(f"{path}.history")):
        assert (each / "_delta_log" / "_last_checkpoint").exists()
        for version in range(40):
            (each / "_delta_log" / f"{version:020}.json").unlink()
    source.again()
    source.change(ACCOUNTS, ("u", "10", "y"))
    assert tables(source.root)["public.accounts"] == ["(10, 'y')", *expected[1:]]
    assert len(history(source.root)) == 1 + 59 * 2 + 11
