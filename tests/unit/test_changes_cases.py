"""Single cases of following rows, counting copies and bringing rows forward."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from catchment.changes.bag import coalesce_bag
from catchment.changes.coalesce import coalesce
from catchment.changes.forward import Forward, unseen
from catchment.changes.snapshot import Snapshot
from catchment.model.batch import META, OP, SEQ, UNCHANGED, rows_schema
from catchment.model.errors import TableStopped
from catchment.model.table import Column, ReplicaIdentity, Table

Change = tuple[str, str | None, str | None] | tuple[str, str | None, str | None, list[int]]


def make_table(identity: ReplicaIdentity = ReplicaIdentity.DEFAULT, key: tuple[str, ...] = ("id",)) -> Table:
    columns = tuple(Column(number, name, "pg_catalog", "text", -1, True) for number, name in enumerate(("id", "v"), 1))
    return Table(1, "public", "t", columns, key, identity, 1)


def batch(*changes: Change, xids: Sequence[int] = ()) -> pa.RecordBatch:
    count = len(changes)
    fields = [
        [change[0] for change in changes],
        range(count),
        [0] * count,
        xids or [0] * count,
        [datetime(2026, 1, 1, tzinfo=UTC)] * count,
        [change[3] if len(change) == 4 else None for change in changes],
    ]
    meta = [pa.array(values, field.type) for values, field in zip(fields, META, strict=True)]
    columns = [pa.array([change[place] for change in changes], pa.string()) for place in (1, 2)]
    return pa.RecordBatch.from_arrays([*meta, *columns], schema=rows_schema(("id", "v")))


def rows(data: pa.RecordBatch) -> list[tuple[str | None, ...]]:
    return list(zip(*(column.to_pylist() for column in data.columns[-2:]), strict=True))


@pytest.mark.parametrize(
    ("changes", "gone", "left", "origin"),
    [
        ([], [], [], []),
        ([("c", "1", "a"), ("d", "1", None)], [], [], []),
        ([("c", "1", "a"), ("b", "1", None), ("u", "2", "b"), ("d", "2", None)], [], [], []),
        ([("d", "1", None), ("c", "1", "a")], ["1"], [("1", "a")], [None]),
        ([("u", "1", "a"), ("c", "1", "b"), ("r", "1", "c")], [], [("1", "c")], [None]),
        ([("b", "1.0", None), ("u", "1.00", "a")], ["1.0"], [("1.00", "a")], ["1.0"]),
        ([("b", "1", None), ("u", "2", "a"), ("b", "2", None), ("u", "1", "b")], [], [("1", "b")], [None]),
        ([("d", "2", None), ("b", "1", None), ("u", "2", "a")], ["2", "1"], [("2", "a")], ["1"]),
        ([("c", "1", "a"), ("b", "1", None), ("u", "2", "b")], [], [("2", "b")], [None]),
        # PostgreSQL streams neither of these: whatever was told last stands, and no key is deleted twice.
        ([("u", "1", "a"), ("c", "1", None, [1])], ["1"], [], []),
        ([("d", "1", None), ("u", "1", "a"), ("d", "1", None)], ["1"], [], []),
        # Read by a backfill: the target may have had it from an earlier one.
        ([("r", "1", "a"), ("b", "1", None), ("u", "2", "b")], ["1"], [("2", "b")], [None]),
        ([("r", "1", "a"), ("d", "1", None)], ["1"], [], []),
    ],
)
def test_a_run_amounts_to(
    changes: list[Change], gone: list[str], left: list[tuple[str, str]], origin: list[str | None]
) -> None:
    net = coalesce(make_table(), [batch(*changes)] if changes else [])
    assert net.gone[0].to_pylist() == gone
    assert rows(net.rows) == left
    assert net.origin[0].to_pylist() == origin
    assert net.rows.schema == rows_schema(("id", "v"))


def test_a_swap_keeps_values_left_out_with_their_rows() -> None:
    net = coalesce(
        make_table(),
        [
            batch(("u", "1", "one"), ("b", "1", None), ("u", "t", None, [1])),
            batch(("b", "2", None), ("u", "1", None, [1]), ("b", "t", None), ("u", "2", None, [1])),
        ],
    )
    assert sorted(net.gone[0].to_pylist()) == ["1", "2"]
    assert rows(net.rows) == [("1", None), ("2", "one")]
    assert net.rows.column(UNCHANGED).to_pylist() == [[1], None]
    assert net.origin[0].to_pylist() == ["2", "1"]
    assert net.rows.column(SEQ).to_pylist() == [1, 3]


def test_the_whole_old_row_tells_values_left_out() -> None:
    net = coalesce(make_table(ReplicaIdentity.FULL), [batch(("b", "1", "old"), ("u", "1", None, [1]))])
    assert rows(net.rows) == [("1", "old")]
    assert net.rows.column(UNCHANGED).to_pylist() == [None]


def test_only_the_key_counts_of_a_before_row_unless_identity_is_full() -> None:
    net = coalesce(make_table(), [batch(("b", "1", None), ("u", "1", None, [0, 1]))])
    assert rows(net.rows) == [("1", None)]
    assert net.rows.column(UNCHANGED).to_pylist() == [[1]]


def test_a_row_created_with_values_left_out_waits_for_its_re_read() -> None:
    net = coalesce(make_table(), [batch(("d", "1", None), ("c", "1", None, [1]))])
    assert net.gone[0].to_pylist() == ["1"]
    assert rows(net.rows) == []
    net = coalesce(make_table(), [batch(("c", "1", None, [1]), ("r", "1", "a"))])
    assert rows(net.rows) == [("1", "a")]


def test_long_chains_and_wide_integer_keys_are_followed() -> None:
    keys = ["1", "9000000000000000000", *(str(number) for number in range(2, 300))]
    moves = [change for old, new in pairwise(keys) for change in (("b", old, None), ("u", new, None, [1]))]
    net = coalesce(make_table(), [batch(("u", "1", "a"), *moves)])
    assert net.gone[0].to_pylist() == ["1"]
    assert rows(net.rows) == [("299", "a")]
    assert net.origin[0].to_pylist() == ["1"]


def test_digits_that_are_not_the_same_text_are_other_keys() -> None:
    for keys in (("7", "07"), ("7", "99999999999999999999"), ("7", "")):
        net = coalesce(make_table(), [batch(*(("c", key, "a") for key in keys))])
        assert rows(net.rows) == [(key, "a") for key in keys]


def test_rows_only_read_or_created_keep_their_copies_and_order() -> None:
    table = make_table(ReplicaIdentity.FULL, ())
    net = coalesce_bag(table, [batch(("r", "2", "a"), ("c", "1", "b")), batch(("c", "2", "a"))])
    assert rows(net.added) == [("2", "a"), ("1", "b"), ("2", "a")]
    assert net.removed.num_rows == len(net.copies) == 0


def test_null_and_the_empty_text_are_two_rows_of_a_bag() -> None:
    table = make_table(ReplicaIdentity.FULL, ())
    net = coalesce_bag(table, [batch(("c", "1", None), ("d", "1", ""), ("d", "1", ""), ("d", None, None))])
    assert rows(net.added) == [("1", None)]
    assert dict(zip(rows(net.removed), net.copies.to_pylist(), strict=True)) == {("1", ""): 2, (None, None): 1}


@pytest.mark.parametrize(
    ("table", "kept"),
    [
        (make_table(ReplicaIdentity.FULL, ()), batch(("d", "2", "x"))),
        (make_table(ReplicaIdentity.FULL, ()), batch(("d", "1", "a"), ("d", "1", "a"))),
    ],
)
def test_rows_that_do_not_fit_stop_a_table_without_a_key(table: Table, kept: pa.RecordBatch) -> None:
    forward = Forward(table, [kept])
    forward.held([pa.array(["1"]), pa.array(["a"])])
    with pytest.raises(TableStopped, match="do not fit together") as stopped:
        forward.rest()
    assert stopped.value.table == "public.t"


def test_a_snapshot_parses_and_prints() -> None:
    snapshot = Snapshot.parse("10:20:10,14,15")
    assert snapshot == Snapshot(10, 20, frozenset({10, 14, 15}))
    assert str(snapshot) == "10:20:10,14,15"
    assert str(Snapshot.parse("7:7:")) == "7:7:"
    for text in ("", "1:2", "1:2:x", "1:2:3:4"):
        with pytest.raises(ValueError, match=r"."):
            Snapshot.parse(text)


def test_a_snapshot_sees_what_had_ended() -> None:
    sees = Snapshot.parse("10:20:10,14").sees([3, 9, 10, 11, 14, 19, 20, 21])
    assert sees.tolist() == [True, True, False, True, False, True, False, False]


def test_a_snapshot_sees_across_the_wrap_around_of_xids() -> None:
    epoch = 1 << 32
    snapshot = Snapshot(3 * epoch - 5, 3 * epoch + 5, frozenset({3 * epoch - 2, 3 * epoch + 3}))
    xids = np.array([epoch - 6, epoch - 2, epoch - 1, 3, 4, 5, 6])
    assert snapshot.sees(xids).tolist() == [True, False, True, False, True, False, False]


def test_a_snapshot_knows_what_it_sees_of_a_later_ones_open_transactions_however_much_later() -> None:
    first = Snapshot.parse("1000:1003:1000,1002")
    assert not first.sees_one_open_in(Snapshot.parse("1003:1003:"))
    assert not first.sees_one_open_in(Snapshot.parse("1000:1004:1000,1002,1003"))
    assert first.sees_one_open_in(Snapshot.parse("1001:1004:1001,1002"))
    assert first.sees_one_open_in(Snapshot.parse("900:1004:900"))
    for xid in (5000, 5000 + (1 << 31), 1 << 32, 5000 + (5 << 31)):
        assert not first.sees_one_open_in(Snapshot.parse(f"{xid}:{xid + 1}:{xid}"))


def test_only_changes_that_a_snapshot_does_not_see_are_kept() -> None:
    changes = batch(("c", "1", "a"), ("b", "1", None), ("u", "2", "b"), ("d", "2", None), xids=[9, 12, 12, 30])
    kept = unseen(changes, Snapshot.parse("10:20:12"))
    assert kept.column(OP).to_pylist() == ["b", "u", "d"]
    assert kept.schema == changes.schema
