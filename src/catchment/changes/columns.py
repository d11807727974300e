"""Whole columns of texts: joined, taken, numbered and searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Rows = npt.NDArray[np.int64]
"""Positions of rows, or numbers that stand for rows."""

_ROWS_WORTH_A_LOOK = 1_000

Truths = npt.NDArray[np.bool_]
"""One truth per row."""


def concatenate(arrays: Sequence[pa.Array[Any]]) -> pa.Array[Any]:
    """At least one array, all of one type, one behind the other."""
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)


def take(array: pa.Array[Any], rows: Rows) -> pa.Array[Any]:
    """The values at these positions, null at -1."""
    absent = rows < 0
    taken: pa.Array[Any]
    if absent.all():
        taken = pa.array([None] * len(rows), array.type)
    else:
        positions: Any = pa.array(rows, mask=absent if absent.any() else None)
        taken = array.take(positions)
    return taken


def letters(array: pa.Array[Any]) -> npt.NDArray[np.uint8]:
    """The bytes of all texts of a column of strings, or large strings, without gaps."""
    if not len(array):  # then Arrow may leave out the offsets too
        return np.zeros(0, dtype=np.uint8)
    buffers: Any = array.buffers()
    wide = pa.types.is_large_string(array.type)
    offsets = np.frombuffer(buffers[1], dtype=np.int64 if wide else np.int32)
    start, end = offsets[array.offset], offsets[array.offset + len(array)]
    return np.frombuffer(buffers[2] or b"", dtype=np.uint8)[start:end]


def lengths(array: pa.Array[Any]) -> Rows:
    """The number of bytes of each text of a column of strings, zero of null."""
    sizes: Any = pc.binary_length
    return np.asarray(sizes(array).fill_null(0), dtype=np.int64)


def codes(columns: Sequence[pa.Array[Any]]) -> Rows:
    """One number for each row, equal where all texts are, below the number of rows. Null equals null, but not ''."""
    result = _codes(columns[0])
    for column in columns[1:]:
        own = _codes(column)
        # Both factors are below the number of rows, so their product fits 64 bits; numbering it anew keeps that true.
        result = _numbered(pa.array(result * (own.max(initial=0) + 1) + own))
    return result


def _codes(column: pa.Array[Any]) -> Rows:
    numbers = _integers(column) if len(column) >= _ROWS_WORTH_A_LOOK else None
    if numbers is None:
        return _numbered(column)
    low, high = int(numbers.min()), int(numbers.max())
    span = high - low + 1
    if span > 8 * len(numbers):
        return _numbered(pa.array(numbers))
    present = np.zeros(span, dtype=np.int64)
    present[numbers - low] = 1
    codes: Rows = np.cumsum(present) - 1
    return codes[numbers - low]


def _integers(column: pa.Array[Any]) -> Rows | None:
    """The texts as integers, if each is just what its integer prints as: the usual key, and faster to compare."""
    if column.null_count or not len(column) or (letters(column) - ord("0") > 9).any():
        return None
    try:
        integers = column.cast(pa.int64())
    except pa.ArrowInvalid:
        return None
    return integers.to_numpy() if integers.cast(column.type).equals(column) else None


def _numbered(column: pa.Array[Any]) -> Rows:
    encoded: Any = column.dictionary_encode(null_encoding="encode")
    return np.asarray(encoded.indices, dtype=np.int64)


class RowIndex:
    """Finds given rows by their texts, of equal ones any. Null equals null, but not ''."""

    def __init__(self, columns: Sequence[pa.Array[Any]]) -> None:
        self._values = [column.unique() for column in columns]
        self._steps: list[Rows] = []
        place = np.zeros(len(columns[0]) if columns else 0, dtype=np.int64)
        for column, values in zip(columns, self._values, strict=True):
            pairs = place * len(values) + _positions(column, values)
            step = np.unique(pairs)
            self._steps.append(step)
            place = np.searchsorted(step, pairs)
        self._given = np.empty(len(place), dtype=np.int64)
        self._given[place] = np.arange(len(place))

    def find(self, columns: Sequence[pa.Array[Any]]) -> Rows:
        """For each row of these columns which of the given rows it equals, -1 for none."""
        candidates = np.arange(len(columns[0]))
        place = np.zeros(len(candidates), dtype=np.int64)
        for column, values, step in zip(columns, self._values, self._steps, strict=True):
            among = column if len(candidates) == len(column) else take(column, candidates)
            own = _positions(among, values)
            pairs = place * len(values) + own
            place = np.searchsorted(step, pairs)
            known = (own >= 0) & (place < len(step))
            known[known] = step[place[known]] == pairs[known]
            candidates, place = candidates[known], place[known]
        found = np.full(len(columns[0]), -1, dtype=np.int64)
        found[candidates] = self._given[place]
        return found


def _positions(column: pa.Array[Any], values: pa.Array[Any]) -> Rows:
    return np.asarray(pc.index_in(column, value_set=values).fill_null(-1), dtype=np.int64)
