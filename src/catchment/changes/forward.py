"""Bring rows that a backfill has read forward to a later place in the stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catchment.changes.bag import coalesce_bag
from catchment.changes.coalesce import coalesce
from catchment.changes.columns import RowIndex, Rows, take
from catchment.changes.run import rows_leaving_out
from catchment.changes.snapshot import Snapshot
from catchment.model.batch import META, UNCHANGED, XID
from catchment.model.errors import TableStopped
from catchment.model.table import Table


def unseen(rows: pa.RecordBatch, snapshot: Snapshot) -> pa.RecordBatch:
    """The rows, laid out as ``TableRows.data``, of transactions that the snapshot does not see."""
    return rows.filter(pa.array(~snapshot.sees(rows.column(XID).to_numpy())))


class Forward:
    """Rows of one table as a snapshot saw them become the rows as they stand after the changes that it did not see.

    ``kept``: those changes, in order. With a key some of the table's rows may be read, without one all of them are.
    ``told``: whether the targets have been told of these changes too. Where they have not, what all calls of ``held``
    and then ``rest`` return is every row that was read or changed; where they have, of the changed rows those that
    some change told in part. A row that left out values and that was not read is not returned.
    """

    def __init__(self, table: Table, kept: Sequence[pa.RecordBatch], told: bool = False) -> None:
        self._rows: _KeyedRows | _BagOfRows = _KeyedRows(table, kept, told) if table.key else _BagOfRows(table, kept)

    def held(self, columns: Sequence[pa.Array[Any]]) -> list[pa.Array[Any]]:
        """What still stands of some of the rows read; one array of strings for each of the table's columns."""
        return self._rows.held(columns)

    def rest(self) -> list[pa.Array[Any]]:
        """After the last of the rows read: the changed and the new rows, complete.

        Raises TableStopped when the table has no key and a row went that was not among the rows read.
        """
        return self._rows.rest()


class _KeyedRows:
    def __init__(self, table: Table, kept: Sequence[pa.RecordBatch], told: bool) -> None:
        net = coalesce(table, kept)
        self._table = table
        self._to_tell = net.in_part if told else np.ones(net.rows.num_rows, dtype=np.bool_)
        self._changed: list[pa.Array[Any]] = net.rows.columns[len(META) :]
        own = [self._changed[position] for position in table.key_positions]
        # A row that is not told whole yet must not be told as it was either.
        touching = zip(net.gone, own, net.unborn, strict=True)
        self._touched = RowIndex([pa.concat_arrays(columns) for columns in touching])

        unchanged = net.rows.column(UNCHANGED)
        self._left_out = rows_leaving_out(unchanged)
        self._incomplete = np.flatnonzero(unchanged.is_valid())
        known_as = [pc.coalesce(*pair) for pair in zip(net.origin, own, strict=True)]
        self._wanted = RowIndex([take(column, self._incomplete) for column in known_as])
        self._found: list[Rows] = [np.arange(0)]
        self._values = [[column.slice(0, 0)] for column in self._changed]

    def held(self, columns: Sequence[pa.Array[Any]]) -> list[pa.Array[Any]]:
        keys = [columns[position] for position in self._table.key_positions]
        touched = self._touched.find(keys) >= 0
        rows = np.flatnonzero(touched)
        if not len(rows):
            return list(columns)
        wanted = self._wanted.find([take(key, rows) for key in keys])
        self._found.append(wanted[wanted >= 0])
        for values, column in zip(self._values, columns, strict=True):
            values.append(take(column, rows[wanted >= 0]))
        return [column.filter(pa.array(~touched)) for column in columns]

    def rest(self) -> list[pa.Array[Any]]:
        count = len(self._changed[0])
        found = np.concatenate(self._found)
        place = np.full(count, -1, dtype=np.int64)
        place[self._incomplete[found]] = np.arange(len(found))
        known = np.ones(count, dtype=np.bool_)
        known[self._incomplete] = place[self._incomplete] >= 0
        rows = np.flatnonzero(known & self._to_tell)
        columns = []
        for position, column in enumerate(self._changed):
            source = np.arange(count)
            if (leaving_out := self._left_out.get(position)) is not None:
                source[leaving_out] = count + place[leaving_out]
            columns.append(take(pa.concat_arrays([column, *self._values[position]]), source[rows]))
        return columns


class _BagOfRows:
    def __init__(self, table: Table, kept: Sequence[pa.RecordBatch]) -> None:
        net = coalesce_bag(table, kept)
        self._table = table
        self._added: list[pa.Array[Any]] = net.added.columns
        self._removed = RowIndex(net.removed.columns)
        self._copies = np.array(net.copies)

    def held(self, columns: Sequence[pa.Array[Any]]) -> list[pa.Array[Any]]:
        removed = self._removed.find(columns)
        rows = np.flatnonzero(removed >= 0)
        rows = rows[np.argsort(removed[rows], kind="stable")]
        equal_to = removed[rows]
        nth_copy = np.arange(len(rows)) - np.searchsorted(equal_to, equal_to)
        goes = nth_copy < self._copies[equal_to]
        if not goes.any():
            return list(columns)
        self._copies -= np.bincount(equal_to[goes], minlength=len(self._copies))
        stays = np.ones(len(removed), dtype=np.bool_)
        stays[rows[goes]] = False
        return [column.filter(pa.array(stays)) for column in columns]

    def rest(self) -> list[pa.Array[Any]]:
        if self._copies.any():
            raise TableStopped(
                "rows read and rows streamed do not fit together", table=str(self._table), remedy="it is read again"
            )
        return self._added
