"""A table in the ODS against a naive model: a table's history, row by row, as PostgreSQL would stream it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count, pairwise

import psycopg
import pytest
from histories import Change, History, Row, as_batch, cut, cuts, initial, keyed_tables
from hypothesis import given, settings
from hypothesis import strategies as st
from ods_batches import Source

from catchment.model.batch import RefillStarted, TableRows
from catchment.model.table import Table
from catchment.targets.ods import apply
from catchment.targets.ods.target import OdsTarget

SOME = settings(max_examples=60, deadline=None)

commands = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 8), st.integers(0, 8), st.integers(0, 63)), min_size=10, max_size=40
)


@pytest.fixture(scope="module", autouse=True)
def few_are_enough() -> Iterator[None]:
    """Also a single row that should be new goes straight into the table."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(apply, "_ROWS_TO_PASS", 1)
        yield


class Delivered:
    """One table, begun anew by each example, and what readers see of it."""

    def __init__(self, dsn: str) -> None:
        self._target = OdsTarget(dsn, {"orders": "orders"})
        self._reader = psycopg.connect(dsn, autocommit=True)
        self._refills = count(1)
        self._source = Source(self._target)

    def begin(self, shape: Table, rows: list[Row]) -> None:
        self._target.forget("orders")
        self._source = Source(self._target)
        self._refill = f"refill {next(self._refills)}"
        self._source.happen(RefillStarted(self._refill, (shape,), ("ods",)))
        self.read(shape, rows)

    def read(self, shape: Table, rows: list[Row]) -> None:
        self._take(TableRows(shape, as_batch([("r", row, None) for row in rows]), self._refill))

    def change(self, shape: Table, changes: list[Change], cuts: list[int]) -> None:
        self._take(*(TableRows(shape, piece, None) for piece in cut(as_batch(changes), cuts)))

    def _take(self, *rows: TableRows) -> None:
        self._source.apply(self._source.batch(*(one for one in rows if one.data.num_rows)))

    def finish(self) -> Counter[Row]:
        self._source.finish(self._refill)
        return self.rows()

    def rows(self) -> Counter[Row]:
        return Counter(self._reader.execute("SELECT * FROM orders.t").fetchall())

    def close(self) -> None:
        self._target.close()
        self._reader.close()


@pytest.fixture
def ods(ods_database: str) -> Iterator[Delivered]:
    delivered = Delivered(ods_database)
    yield delivered
    delivered.close()


def runs(history: History) -> Iterator[list[Change]]:
    for start, end in pairwise([0, *history.runs, len(history.changes)]):
        yield history.changes[start:end]


def test_promise_1_a_table_is_what_its_changes_say(ods: Delivered) -> None:
    @SOME
    @given(keyed_tables, st.integers(0, 6), commands, cuts)
    def test(shape: Table, rows: int, commands: list[tuple[int, int, int, int]], cuts: list[int]) -> None:
        history = initial(shape, rows)
        ods.begin(shape, list(history.now.values()))
        ods.finish()
        history.play(commands, reads=False)
        for changes in runs(history):
            ods.change(shape, changes, cuts)
        assert ods.rows() == Counter(history.now.values())

    test()


@pytest.mark.parametrize("read_again", [False, True], ids=["not read again", "read again"])
def test_promise_1_what_a_refill_builds_while_the_table_changes_has_no_wrong_rows(
    ods: Delivered, read_again: bool
) -> None:
    @SOME
    @given(keyed_tables, st.integers(0, 6), st.sets(st.integers(0, 8)), commands, cuts)
    def test(
        shape: Table, rows: int, lacking: set[int], commands: list[tuple[int, int, int, int]], cuts: list[int]
    ) -> None:
        history = initial(shape, rows)
        known = {key: row for place, (key, row) in enumerate(sorted(history.now.items())) if place not in lacking}
        history.known = dict(known)
        ods.begin(shape, list(known.values()))
        history.play(commands, filtered=True, reads=False)
        for changes in runs(history):
            ods.change(shape, changes, cuts)
        if read_again:
            ods.read(shape, list(history.now.values()))
            history.known = history.now
        found = ods.finish()
        assert found <= Counter(history.now.values())
        assert Counter(history.known.values()) <= found

    test()
