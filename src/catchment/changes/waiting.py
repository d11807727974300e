"""Rows of which a table's backfill knows only a part: they have to be read again by their keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catchment.changes.coalesce import coalesce
from catchment.changes.columns import RowIndex, letters, take
from catchment.changes.run import CREATE
from catchment.model.batch import META, OP, UNCHANGED
from catchment.model.table import Table

Keys: TypeAlias = "list[pa.Array[Any]]"
"""One column of texts for each column of the key; no column at all means no key."""


class Waiting:
    """The rows that some change told in part, less those that are told whole.

    A change that leaves out TOASTed values is ignored by a target that has not been told of the row. Which rows were
    told is not kept, so every such row counts, unless ``among`` says that only these keys were still waiting: then it
    counts if it is one of theirs, under whatever key it has by now. A row that was created in part always counts.
    """

    def __init__(self, table: Table, changes: Sequence[pa.RecordBatch], among: Keys | None = None) -> None:
        self._positions = table.key_positions
        leaving_out = [rows for rows in changes if rows.column(UNCHANGED).null_count < rows.num_rows]
        net = coalesce(table, changes if leaving_out else [])
        in_part = np.flatnonzero(net.in_part)
        own = [take(net.rows.column(len(META) + position), in_part) for position in self._positions]
        if among is not None:
            known_as = [pc.coalesce(take(origin, in_part), key) for origin, key in zip(net.origin, own, strict=True)]
            counts = net.created_in_part[in_part]
            if among:
                counts = counts | (RowIndex(among).find(known_as) >= 0)
            own = [take(key, np.flatnonzero(counts)) for key in own]
        self._keys = [pa.concat_arrays(pair) for pair in zip(own, net.unborn, strict=True)]
        self._index = RowIndex(self._keys)
        self._left = np.ones(len(self._keys[0]), dtype=np.bool_)

    def told(self, columns: Sequence[pa.Array[Any]]) -> Sequence[pa.Array[Any]]:
        """Take note that these rows, in all columns of the table, are told whole; returns them."""
        if self._left.any():
            found = self._index.find([columns[position] for position in self._positions])
            self._left[found[found >= 0]] = False
        return columns

    @property
    def keys(self) -> Keys:
        """Of the rows that still wait."""
        left = np.flatnonzero(self._left)
        return [take(key, left) for key in self._keys] if len(left) else []


def created_in_part(table: Table, rows: pa.RecordBatch) -> Keys:
    """The keys of rows that changes created without all their values, as when a row filter begins to let a row in."""
    if not table.key or rows.column(UNCHANGED).null_count == rows.num_rows:
        return []
    in_part = rows.column(UNCHANGED).is_valid().to_numpy(zero_copy_only=False)
    created = np.flatnonzero(in_part & (letters(rows.column(OP)) == CREATE))
    keys = [rows.column(len(META) + position) for position in table.key_positions]
    return [take(key, created) for key in keys] if len(created) else []


def together(one: Keys, other: Keys) -> Keys:
    """Both."""
    if not (one and other):
        return one or other
    return [pa.concat_arrays(pair) for pair in zip(one, other, strict=True)]
