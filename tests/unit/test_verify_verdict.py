"""Whether rows are what they should be: the source's, brought forward by what the log has told since."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from catchment.changes.digest import Buckets, Columns, MetHashes, as_text, from_text, no_buckets, row_hashes
from catchment.model.batch import rows_schema
from catchment.model.table import Column, ReplicaIdentity, Table
from catchment.pipeline.verify_verdict import Difference, brought_forward, counted, judge, touched, unlike

NOW = datetime(2026, 11, 23, tzinfo=UTC)
Row = tuple[str | None, ...]


def table(identity: ReplicaIdentity = ReplicaIdentity.DEFAULT, key: tuple[str, ...] = ("id",)) -> Table:
    columns = tuple(
        Column(number, name, "pg_catalog", "text", -1, True) for number, name in enumerate(("id", "name", "big"), 1)
    )
    return Table(1, "public", "things", columns, key, identity, 1)


def columns(*rows: Row, width: int = 3) -> Columns:
    return [pa.array([row[place] for row in rows], pa.string()) for place in range(width)]


def changes(*told: tuple[str, Row, list[int] | None]) -> pa.RecordBatch:
    records: list[dict[str, Any]] = [
        {"_op": op, "_seq": place, "_lsn": 1, "_xid": 1, "_committed_at": NOW, "_unchanged": unchanged}
        | dict(zip(("id", "name", "big"), row, strict=True))
        for place, (op, row, unchanged) in enumerate(told)
    ]
    return pa.RecordBatch.from_pylist(records, rows_schema(["id", "name", "big"]))


def keys(*texts: str) -> Columns:
    return [pa.array(texts, pa.string())]


def as_printed(_: int, texts: pa.Array) -> pa.Array:
    return texts


def shortened(_: int, texts: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(texts, r"\.?0+$", "")


def found(judged: Columns, theirs: Columns, kept: list[pa.RecordBatch], ours: Columns) -> list[Difference]:
    verdict = judge(table(), judged, theirs, kept, ours, as_printed)
    assert not len(verdict.unknown[0])
    return verdict.differences


def test_what_is_the_same_text_is_the_same_and_nothing_else_is() -> None:
    theirs = columns(("1", "1.0", None), ("2", "", "x"), ("3", "same", None), ("4", "gone", ""))
    ours = columns(("3", "same", None), ("2", None, "x"), ("1", "1.00", ""), ("5", "extra", ""))
    assert found(keys("1", "2", "3", "4", "5"), theirs, [], ours) == [
        Difference(("1",), "differs", ("name", "big")),
        Difference(("2",), "differs", ("name",)),
        Difference(("4",), "missing"),
        Difference(("5",), "extra"),
    ]


def test_a_key_that_a_server_takes_for_equal_is_another_one() -> None:
    assert found(keys("1.0"), columns(("1.00", "a", "b")), [], columns(("1.0", "a", "b"))) == [
        Difference(("1.0",), "extra")
    ]


def test_what_a_target_does_not_tell_apart_is_the_same_there() -> None:
    kept = [changes(("b", ("2.00", None, None), None), ("u", ("3.0", "5.10", "b"), None))]
    theirs = columns(("1.0", "5.50", "b"), ("2.00", "x", "b"), ("4.0", "same", "b"))
    ours = columns(("1", "5.5", "b"), ("3", "5.1", "b"), ("4", "same", "c"))
    verdict = judge(table(), keys("1", "2", "3", "4"), theirs, kept, ours, shortened)
    assert verdict.differences == [Difference(("4",), "differs", ("big",))]
    assert touched(table(), keys("1", "2", "3", "4"), kept[0], shortened).tolist() == [False, True, True, False]


def test_a_row_that_is_there_twice_is_extra() -> None:
    row = ("1", "a", "b")
    assert found(keys("1"), columns(row), [], columns(row, row)) == [Difference(("1",), "extra")]


def test_hashes_are_met_once_and_the_others_remain() -> None:
    own = MetHashes([np.array([7, 1], np.uint64), np.array([2**64 - 1, 7, 9], np.uint64)])
    assert own.meet(np.array([7, 8, 2**64 - 1, 0], np.uint64)).tolist() == [True, False, True, False]
    assert own.unmet().tolist() == [1, 7, 9]
    assert MetHashes([]).meet(np.array([1], np.uint64)).tolist() == [False]
    assert from_text(as_text(own.unmet())).tolist() == [1, 7, 9]


def test_changes_in_between_are_what_the_target_must_have() -> None:
    theirs = columns(("1", "old", "b"), ("2", "goes", "b"), ("3", "moves", "b"), ("4", "stale", "b"))
    kept = [
        changes(
            ("u", ("1", "new", "b"), None),
            ("d", ("2", None, None), None),
            ("b", ("3", None, None), None),
            ("u", ("30", "moves", "b"), None),
            ("c", ("5", "comes", None), None),
            ("u", ("4", "fresh", "b"), None),
        )
    ]
    right = columns(("1", "new", "b"), ("30", "moves", "b"), ("4", "fresh", "b"), ("5", "comes", None))
    judged = keys("1", "2", "3", "30", "4", "5")
    assert found(judged, theirs, kept, right) == []
    # The rows as they were before are not right any more.
    assert [(one.key[0], one.kind) for one in found(judged, theirs, kept, theirs)] == [
        ("1", "differs"),
        ("2", "extra"),
        ("3", "extra"),
        ("30", "missing"),
        ("4", "differs"),
        ("5", "missing"),
    ]


def test_a_value_left_out_is_the_one_that_was_read() -> None:
    theirs = columns(("1", "old", "large"))
    kept = [changes(("u", ("1", "new", None), [2]))]
    assert found(keys("1"), theirs, kept, columns(("1", "new", "large"))) == []
    assert found(keys("1"), theirs, kept, columns(("1", "new", "other"))) == [Difference(("1",), "differs", ("big",))]


def test_a_row_that_came_with_values_left_out_is_not_judged() -> None:
    kept = [changes(("b", ("1", None, None), None), ("u", ("2", "new", None), [2]))]
    verdict = judge(table(), keys("2"), columns(), kept, columns(("2", "new", "anything")), as_printed)
    assert verdict.differences == []
    assert verdict.unknown[0].to_pylist() == ["2"]


def test_changes_of_other_rows_do_no_harm() -> None:
    kept = [changes(("u", ("8", "x", None), [2]), ("d", ("9", None, None), None))]
    assert found(keys("1"), columns(("1", "a", "b")), kept, columns(("1", "a", "b"))) == []


def test_candidates_are_keys_whose_hashes_differ_each_once() -> None:
    theirs = columns(("1", "x"), ("2", "y"), ("3", "z"), width=2)
    ours = columns(("2", "other"), ("3", "z"), ("4", "w"), width=2)
    assert unlike(theirs, ours)[0].to_pylist() == ["1", "2", "4"]
    assert unlike(theirs, columns(width=2))[0].to_pylist() == ["1", "2", "3"]
    assert len(unlike(theirs, theirs)[0]) == 0


def test_old_and_new_keys_are_touched() -> None:
    told = changes(("b", ("1", None, None), None), ("u", ("2", "a", "b"), None), ("d", ("3", None, None), None))
    assert touched(table(), keys("1", "2", "3", "4"), told, as_printed).tolist() == [True, True, True, False]


def bag(*rows: Row) -> Buckets:
    return no_buckets().changed(row_hashes(columns(*rows)), np.ones(len(rows), np.int64)) if rows else no_buckets()


def test_a_bag_of_rows_is_brought_forward_copy_by_copy() -> None:
    full = table(ReplicaIdentity.FULL, ())
    read = bag(("1", "a", None), ("1", "a", None), ("2", "b", ""))
    kept = [
        changes(
            ("d", ("1", "a", None), None),
            ("c", ("3", "c", "x"), None),
            ("b", ("2", "b", ""), None),
            ("u", ("2", "b", None), None),
        )
    ]
    then = brought_forward(full, read, kept, as_printed)
    assert counted(then, bag(("1", "a", None), ("3", "c", "x"), ("2", "b", None))) == (0, 0)
    assert counted(then, bag(("1", "a", None), ("3", "c", "x"), ("2", "b", ""))) == (1, 1)
    assert counted(then, bag(("1", "a", None), ("3", "c", "x"))) == (1, 0)
    assert counted(read, bag(("1", "a", None), ("1", "a", None), ("1", "a", None), ("2", "b", ""))) == (0, 1)


@pytest.mark.parametrize("pair", [(None, ""), ("NULL", None), ("a'b", "a''b"), ("1.0", "1.00"), ("E'\\'", "\\")])
def test_hashes_tell_values_apart_that_look_alike(pair: tuple[str | None, str | None]) -> None:
    one, other = (row_hashes([pa.array([text, "x"], pa.string())]) for text in pair)
    assert one[0] != other[0]
    assert one[1] == other[1]


def test_hashes_tell_where_a_value_ends() -> None:
    one, other = columns(("a", "b'"), ("a'b", ""), width=2)
    hashes = row_hashes([one, other])
    assert hashes[0] != hashes[1]
