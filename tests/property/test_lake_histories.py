"""A table in the lake against a naive model: a table's history, row by row, as PostgreSQL would stream it."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import polars
import pytest
from histories import NAMES, Bag, Change, Row, as_batch, cut, cuts, initial, keyed_tables, make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from catchment.model.table import ReplicaIdentity, Table
from catchment.targets.lake.current import CurrentTable
from catchment.targets.lake.local import LocalStore

SOME = settings(max_examples=40, deadline=None)


class Lake:
    """One table of it, and now and then another process that goes on with it."""

    def __init__(self, root: Path, shape: Table) -> None:
        self._root = root
        self._shape = shape
        self._table: CurrentTable | None = CurrentTable.create(
            LocalStore(root), LocalStore(root / "cache"), "t", "orders", shape, {}
        )
        self._offsets = count(1)

    def apply(self, changes: Sequence[Change], cuts: Sequence[int]) -> None:
        if self._table is None:
            self._table = CurrentTable.open(LocalStore(self._root), LocalStore(self._root / "cache"), "t", "orders")
            assert self._table
        if changes:
            self._table.apply(self._shape, cut(as_batch(changes), cuts), {"orders": next(self._offsets)})

    def end(self, keep_cache: bool) -> None:
        self._table = None
        if not keep_cache:
            shutil.rmtree(self._root / "cache", ignore_errors=True)

    def rows(self) -> Counter[Row]:
        return Counter(polars.read_delta(str(self._root / "t")).select(NAMES).rows())


@contextmanager
def lake(shape: Table) -> Iterator[Lake]:
    # The machine goes on, so that nothing has to be durable, and the test is quick.
    with TemporaryDirectory() as root, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(os, "fsync", os.fstat)
        yield Lake(Path(root), shape)


many = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 8), st.integers(0, 8), st.integers(0, 63)), min_size=15, max_size=40
)
ends = st.lists(st.sampled_from(["", "keep", "lose"]), min_size=50, max_size=50)


@SOME
@given(keyed_tables, st.integers(0, 6), many, cuts, ends)
def test_promise_1_a_table_with_a_key_is_what_its_changes_say_whatever_becomes_of_the_index(
    shape: Table, rows: int, commands: list[tuple[int, int, int, int]], cuts: list[int], ends: list[str]
) -> None:
    history = initial(shape, rows)
    with lake(shape) as target:
        target.apply([("c", row, None) for row in history.now.values()], cuts)
        history.play(commands)
        for (start, end), ending in zip(pairwise([0, *history.runs, len(history.changes)]), ends, strict=False):
            target.apply(history.changes[start:end], cuts)
            if ending:
                target.end(keep_cache=ending == "keep")
        assert target.rows() == Counter(history.now.values())


@SOME
@given(keyed_tables, st.integers(0, 6), st.sets(st.integers(0, 8)), many, cuts)
def test_promise_4_a_table_that_lacks_rows_never_shows_wrong_ones(
    shape: Table, rows: int, lacking: set[int], commands: list[tuple[int, int, int, int]], cuts: list[int]
) -> None:
    history = initial(shape, rows)
    known = {key: row for place, (key, row) in enumerate(sorted(history.now.items())) if place not in lacking}
    history.known = dict(known)
    with lake(shape) as target:
        target.apply([("c", row, None) for row in known.values()], cuts)
        history.play(commands, filtered=True)
        for start, end in pairwise([0, *history.runs, len(history.changes)]):
            target.apply(history.changes[start:end], cuts)
        found = target.rows()
    assert found <= Counter(history.now.values())
    assert Counter(history.known.values()) <= found


@SOME
@given(st.lists(many, min_size=4, max_size=4), cuts, ends)
def test_promise_1_a_table_without_a_key_is_what_its_changes_say(
    runs: list[list[tuple[int, int, int, int]]], cuts: list[int], ends: list[str]
) -> None:
    bag = Bag()
    shape = make_table((), ReplicaIdentity.FULL)
    with lake(shape) as target:
        for each, ending in zip(runs, ends, strict=False):
            bag.play(each)
            target.apply(bag.changes, cuts)
            bag.changes.clear()
            if ending:
                target.end(keep_cache=ending == "keep")
        assert target.rows() == Counter(bag.now)
