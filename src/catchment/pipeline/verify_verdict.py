"""Which rows differ, once it is known what the log has told in between: whole columns in, verdicts out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catchment.changes.bag import coalesce_bag
from catchment.changes.coalesce import coalesce
from catchment.changes.columns import RowIndex, Rows, Truths, codes, take
from catchment.changes.digest import Buckets, Columns, Key, row_hashes
from catchment.changes.run import Run, rows_leaving_out
from catchment.model.batch import META, UNCHANGED
from catchment.model.table import Table


@dataclass(frozen=True, slots=True)
class Difference:
    """A key at which source and target are not the same, as texts in the order of the key's columns.

    ``missing``: the target lacks the row; ``extra``: the source does; ``differs``: in these columns.
    """

    key: Key
    kind: Literal["missing", "extra", "differs"]
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What has come out for some keys. ``unknown``: those of which nothing can be said yet."""

    differences: list[Difference]
    unknown: Columns


def unlike(theirs: Columns, ours: Columns) -> Columns:
    """The keys, each once, whose hashes are not the same on both sides; each side's last column is the hash."""
    their_own = RowIndex(ours).find(theirs) < 0
    our_own = RowIndex(theirs).find(ours) < 0
    return distinct(
        [
            pa.concat_arrays([one.filter(pa.array(their_own)), other.filter(pa.array(our_own))])
            for one, other in zip(theirs[:-1], ours[:-1], strict=True)
        ]
    )


def distinct(keys: Columns) -> Columns:
    """Each key once, where it came first."""
    _, first = np.unique(codes(keys), return_index=True)
    first.sort()
    return [take(column, first) for column in keys]


Held = Callable[[int, "pa.Array[Any]"], "pa.Array[Any]"]
"""What the target prints of a column, by its position, where the source prints these texts."""


def as_held(table: Table, keys: Columns, held: Held) -> Columns:
    """Keys as the target prints them, each once."""
    return distinct([held(position, column) for position, column in zip(table.key_positions, keys, strict=True)])


def judge(
    table: Table, keys: Columns, theirs: Columns, kept: Sequence[pa.RecordBatch], ours: Columns, held: Held
) -> Verdict:
    """Compare the source's rows, brought forward by the changes ``kept``, with the target's at the end of them.

    ``keys``: distinct, those that are judged, as the target prints them; rows with other keys may be among the rest. A
    row that got its key by a change that left values out is unknown: they stand in a row that was not read. One that
    the target has twice is extra.
    """
    index = RowIndex(keys)
    theirs = [held(position, column) for position, column in enumerate(theirs)]
    read = _places(table, keys, theirs)
    unknown = np.zeros(len(read), dtype=np.bool_)
    columns, places = theirs, [read] * len(theirs)
    if kept:
        net = coalesce(table, kept)
        told = [held(position, column) for position, column in enumerate(net.rows.columns[len(META) :])]
        gone = [held(position, column) for position, column in zip(table.key_positions, net.gone, strict=True)]
        place = read.copy()
        place[_known(index.find(gone))] = -1
        at = index.find([told[position] for position in table.key_positions])
        place[_known(at)] = len(theirs[0]) + np.flatnonzero(at >= 0)
        columns = [pa.concat_arrays(pair) for pair in zip(theirs, told, strict=True)]
        places = [place.copy() for _ in columns]
        moved = np.asarray(net.origin[0].is_valid())
        for position, leaving_out in rows_leaving_out(net.rows.column(UNCHANGED)).items():
            rows = leaving_out[at[leaving_out] >= 0]
            stays = ~moved[rows] & (read[at[rows]] >= 0)
            unknown[at[rows[~stays]]] = True
            places[position][at[rows[stays]]] = read[at[rows[stays]]]
    own = _places(table, keys, ours)
    # A key is never null and never left out for long, so that its first column says whether the row is there.
    there, here = places[table.key_positions[0]] >= 0, own >= 0
    differing = np.stack(
        [_differ(take(column, rows), take(our, own)) for column, rows, our in zip(columns, places, ours, strict=True)]
    )
    twice = _is_there_twice(index, [ours[position] for position in table.key_positions], len(own))
    wrong = ((there != here) | (there & here & (differing.any(axis=0) | twice))) & ~unknown
    return Verdict(
        [_difference(table, keys, row, there & ~twice, here, differing) for row in np.flatnonzero(wrong).tolist()],
        [take(column, np.flatnonzero(unknown)) for column in keys],
    )


def brought_forward(table: Table, theirs: Buckets, kept: Sequence[pa.RecordBatch], held: Held) -> Buckets:
    """The same for a table without a key: what its rows' digests are behind these changes."""
    if not kept:
        return theirs
    net = coalesce_bag(table, kept)
    added, removed = (
        row_hashes([held(position, column) for position, column in enumerate(rows.columns)])
        for rows in (net.added, net.removed)
    )
    return theirs.changed(added, np.ones(len(added), dtype=np.int64)).changed(removed, -np.asarray(net.copies))


def counted(theirs: Buckets, ours: Buckets) -> tuple[int, int]:
    """How many rows are missing and how many are extra, at least, in digests that differ."""
    differing = theirs.differing(ours)
    lacking = theirs.rows[differing] - ours.rows[differing]
    exchanged = int((lacking == 0).sum())
    return int(lacking[lacking > 0].sum()) + exchanged, int(-lacking[lacking < 0].sum()) + exchanged


def touched(table: Table, keys: Columns, changes: pa.RecordBatch, held: Held) -> Truths:
    """Which of these keys, as the target prints them, the changes name."""
    run = Run.of(table, [changes])
    told = RowIndex([held(position, run.told(position)) for position in table.key_positions])
    found: Truths = told.find(keys) >= 0
    return found


def _is_there_twice(index: RowIndex, keys: Columns, count: int) -> Truths:
    """Which of the ``count`` rows of the index are named more than once."""
    twice: Truths = np.bincount(_known(index.find(keys)), minlength=count) > 1
    return twice


def _known(rows: Rows) -> Rows:
    known: Rows = rows[rows >= 0]
    return known


def _places(table: Table, keys: Columns, rows: Columns) -> Rows:
    """For each key where its row stands among these, -1 for none."""
    return RowIndex([rows[position] for position in table.key_positions]).find(keys)


def _differ(theirs: pa.Array[Any], ours: pa.Array[Any]) -> Truths:
    """Null is not ''."""
    fill: Any = pc.fill_null
    unequal: Truths = np.asarray(fill(pc.not_equal(theirs, ours), False))
    differ: Truths = unequal | (np.asarray(theirs.is_valid()) != np.asarray(ours.is_valid()))
    return differ


def _difference(table: Table, keys: Columns, row: int, there: Truths, here: Truths, differing: Truths) -> Difference:
    key = tuple(column[row].as_py() for column in keys)
    if not here[row]:
        return Difference(key, "missing")
    if not there[row]:
        return Difference(key, "extra")
    return Difference(key, "differs", tuple(table.columns[place].name for place in np.flatnonzero(differing[:, row])))
