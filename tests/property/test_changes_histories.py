"""Whole columns against a naive model: a table's history, row by row, as PostgreSQL would stream it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
from histories import (
    MANY,
    Bag,
    Row,
    as_batch,
    commands,
    cut,
    cuts,
    initial,
    keyed_tables,
    keys_of,
    land,
    make_table,
)
from hypothesis import given
from hypothesis import strategies as st

from catchment.changes.bag import coalesce_bag
from catchment.changes.forward import Forward
from catchment.model.batch import META
from catchment.model.table import ReplicaIdentity, Table


@MANY
@given(keyed_tables, st.integers(0, 6), commands, cuts)
def test_coalesced_runs_land_where_single_changes_do(
    table: Table, count: int, commands: list[tuple[int, int, int, int]], cuts: list[int]
) -> None:
    history = initial(table, count)
    target = dict(history.now)
    history.play(commands)
    for net in history.nets(cuts):
        assert set(keys_of(net.gone)) <= set(target)
        assert {key for key in keys_of(net.origin) if key[0] is not None} <= set(keys_of(net.gone))
        land(table, target, net)
    assert target == history.now


@MANY
@given(keyed_tables, st.integers(0, 6), st.sets(st.integers(0, 8)), commands, cuts)
def test_a_target_that_lacks_rows_never_shows_wrong_ones(
    table: Table, count: int, lacking: set[int], commands: list[tuple[int, int, int, int]], cuts: list[int]
) -> None:
    history = initial(table, count)
    target = {key: row for place, (key, row) in enumerate(sorted(history.now.items())) if place not in lacking}
    history.known = dict(target)
    history.play(commands, filtered=True)
    for net in history.nets(cuts):
        land(table, target, net)
    assert target.items() <= history.now.items()
    assert history.known.items() <= target.items()


KEYLESS = make_table((), ReplicaIdentity.FULL)


def rows_of(columns: Sequence[pa.Array]) -> list[Row]:
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


@MANY
@given(commands, commands, cuts)
def test_a_net_bag_lands_where_single_changes_do(
    first: list[tuple[int, int, int, int]], then: list[tuple[int, int, int, int]], cuts: list[int]
) -> None:
    bag = Bag()
    bag.play(first)
    target = Counter(bag.now)
    bag.changes.clear()
    bag.play(then)
    net = coalesce_bag(KEYLESS, cut(as_batch(bag.changes), cuts))
    removed, added = rows_of(net.removed.columns), rows_of(net.added.columns)
    assert len(set(removed)) == len(removed) == len(net.copies)
    assert not set(removed) & set(added)
    for row, copies in zip(removed, net.copies.to_pylist(), strict=True):
        assert 0 < copies <= target[row]
        target[row] -= copies
    assert target + Counter(added) == Counter(bag.now)


def chunks(rows: Sequence[Row], places: Sequence[int]) -> list[list[pa.Array]]:
    batch = as_batch([("r", row, None) for row in rows])
    return [piece.columns[len(META) :] for piece in cut(batch, places)]


def brought_forward(table: Table, held: Sequence[Row], kept: Sequence[pa.RecordBatch], cuts: Sequence[int]) -> Counter:
    forward = Forward(table, kept)
    result: Counter = Counter()
    for chunk in chunks(held, cuts):
        result.update(rows_of(forward.held(chunk)))
    result.update(rows_of(forward.rest()))
    return result


@MANY
@given(keyed_tables, st.integers(0, 6), commands, cuts, cuts)
def test_held_rows_of_a_table_with_a_key_come_forward(
    table: Table, count: int, commands: list[tuple[int, int, int, int]], cuts: list[int], chunk_cuts: list[int]
) -> None:
    history = initial(table, count)
    held = list(history.now.values())
    history.play(commands, reads=False)
    kept = cut(as_batch(history.changes), cuts)
    assert brought_forward(table, held, kept, chunk_cuts) == Counter(history.now.values())


@MANY
@given(commands, commands, cuts, cuts)
def test_held_rows_of_a_table_without_a_key_come_forward(
    first: list[tuple[int, int, int, int]],
    then: list[tuple[int, int, int, int]],
    cuts: list[int],
    chunk_cuts: list[int],
) -> None:
    bag = Bag()
    bag.play(first)
    held = list(bag.now)
    bag.changes.clear()
    bag.play(then)
    kept = cut(as_batch(bag.changes), cuts)
    assert brought_forward(KEYLESS, held, kept, chunk_cuts) == Counter(bag.now)
