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

    ``kept``: those changes, in order. What all calls of ``held`` and then ``rest`` return is the table at that place.
    """

    def __init__(self, table: Table, kept: Sequence[pa.RecordBatch]) -> None:
        self._rows: _KeyedRows | _BagOfRows = _KeyedRows(table, kept) if table.key else _BagOfRows(table, kept)

    def held(self, columns: Sequence[pa.Array[Any]]) -> list[pa.Array[Any]]:
        """What still stands of some of the rows read; one array of strings for each of the table's columns."""
        return self._rows.held(columns)

    def rest(self) -> list[pa.Array[Any]]:
        """After the last of the rows read: the changed and the new rows, complete.

        Raises TableStopped when a change needs a row, or a value of a row, that was not among the rows read.
        """
        return self._rows.rest()


class _KeyedRows:
    def __init__(self, table: Table, kept: Sequence[pa.RecordBatch]) -> None:
        net = coalesce(table, kept)
        self._table = table
        self._changed: list[pa.Array[Any]] = net.rows.columns[len(META) :]
        own = [self._changed[position] for position in table.key_positions]
        self._touched = RowIndex([pa.concat_arrays(pair) for pair in zip(net.gone, own, strict=True)])

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
        found = np.concatenate(self._found)
        order = np.argsort(found)
        if not np.array_equal(found[order], np.arange(len(self._incomplete))):
            raise _misfit(self._table)
        columns = self._changed.copy()
        for position, rows in self._left_out.items():
            source = np.arange(len(columns[position]))
            source[rows] = len(source) + order[np.searchsorted(self._incomplete, rows)]
            columns[position] = take(pa.concat_arrays([columns[position], *self._values[position]]), source)
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
            raise _misfit(self._table)
        return self._added


def _misfit(table: Table) -> TableStopped:
    return TableStopped("rows read and rows streamed do not fit together", table=str(table), remedy="it is read again")
