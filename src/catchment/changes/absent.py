"""Rows that were asked for by their keys and are not there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from catchment.changes.columns import RowIndex, take
from catchment.changes.waiting import Keys
from catchment.model.batch import META
from catchment.model.table import Table


def absent(
    table: Table, keys: Keys, read: Iterable[Sequence[pa.Array[Any]]], changes: Iterable[pa.RecordBatch]
) -> list[pa.Array[Any]]:
    """Of these keys those that no row read has and no change is about, as columns of the table with nothing but keys.

    ``changes`` came since the reading began, laid out as ``TableRows.data``: what they say of a key is newer.
    """
    positions = table.key_positions
    index = RowIndex(keys)
    left = np.ones(len(keys[0]), dtype=np.bool_)
    found = [[columns[position] for position in positions] for columns in read]
    found += [[rows.column(len(META) + position) for position in positions] for rows in changes]
    for columns in found:
        places = index.find(columns)
        left[places[places >= 0]] = False
    rows = np.flatnonzero(left)
    nothing = pa.array([None] * len(rows), pa.string())
    told = dict(zip(positions, (take(key, rows) for key in keys), strict=True))
    return [told.get(position, nothing) for position in range(len(table.columns))]
