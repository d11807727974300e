"""Which rows differ, once it is known what the log has told in between: whole columns in, verdicts out."""

from __future__ import annotations

from collections.abc import Sequence
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


def judge(table: Table, keys: Columns, theirs: Columns, kept: Sequence[pa.RecordBatch], ours: Columns) -> Verdict:
    """Compare the source's rows, brought forward by the changes ``kept``, with the target's at the end of them.

    ``keys``: distinct, those that are judged; rows with other keys may be among the rest. A row that got its key by a
    change that left values out is unknown: they stand in a row that was not read.
    """
    index = RowIndex(keys)
    read = _places(table, keys, theirs)
    unknown = np.zeros(len(read), dtype=np.bool_)
    columns, places = theirs, [read] * len(theirs)
    if kept:
        net = coalesce(table, kept)
        told = net.rows.columns[len(META) :]
        place = read.copy()
        place[_known(index.find(net.gone))] = -1
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
    held = _places(table, keys, ours)
    # A key is never null and never left out for long, so that its first column says whether the row is there.
    there, here = places[table.key_positions[0]] >= 0, held >= 0
    differing = np.stack(
        [_differ(take(column, rows), take(our, held)) for column, rows, our in zip(columns, places, ours, strict=True)]
    )
    wrong = ((there != here) | (there & here & differing.any(axis=0))) & ~unknown
    return Verdict(
        [_difference(table, keys, row, there, here, differing) for row in np.flatnonzero(wrong).tolist()],
        [take(column, np.flatnonzero(unknown)) for column in keys],
    )


def brought_forward(table: Table, theirs: Buckets, kept: Sequence[pa.RecordBatch]) -> Buckets:
    """The same for a table without a key: what its rows' digests are behind these changes."""
    if not kept:
        return theirs
    net = coalesce_bag(table, kept)
    added = theirs.changed(row_hashes(net.added.columns), np.ones(net.added.num_rows, dtype=np.int64))
    return added.changed(row_hashes(net.removed.columns), -np.asarray(net.copies))


def counted(theirs: Buckets, ours: Buckets) -> tuple[int, int]:
    """How many rows are missing and how many are extra, at least, in digests that differ."""
    differing = theirs.differing(ours)
    lacking = theirs.rows[differing] - ours.rows[differing]
    exchanged = int((lacking == 0).sum())
    return int(lacking[lacking > 0].sum()) + exchanged, int(-lacking[lacking < 0].sum()) + exchanged


def touched(table: Table, keys: Columns, changes: pa.RecordBatch) -> Truths:
    """Which of these keys the changes name."""
    run = Run.of(table, [changes])
    told = RowIndex([run.told(position) for position in table.key_positions])
    found: Truths = told.find(keys) >= 0
    return found


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
