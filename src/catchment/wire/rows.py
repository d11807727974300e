"""Decoded rows on their way to Arrow columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catchment.model.batch import COMMITTED_AT, META, UNCHANGED, rows_schema
from catchment.model.errors import NOT_UTF8, DecodeError
from catchment.wire.control import EPOCH, Begin
from catchment.wire.messages import Relation

_EPOCH_IN_ARROW = int(EPOCH.timestamp()) * 1_000_000


def committed_at(times: npt.NDArray[np.int64]) -> pa.Array[Any]:
    """Microseconds since ``EPOCH`` as ``_committed_at``."""
    told: pa.Array[Any] = pa.Array.from_buffers(
        META.field(COMMITTED_AT).type, len(times), [None, pa.py_buffer((times + _EPOCH_IN_ARROW).data)]
    )
    return told


def unchanged(ends: npt.NDArray[Any], columns: npt.NDArray[Any]) -> pa.Array[Any]:
    """``_unchanged``: the columns of all rows one after the other, and where those of each row end, from 0 on."""
    none = pa.array(np.diff(ends) == 0)
    offsets, numbers = pa.array(ends, pa.int32()), pa.array(columns, pa.int16())
    lists: pa.Array[Any] = pa.ListArray.from_arrays(offsets, numbers, type=META.field(UNCHANGED).type, mask=none)
    return lists


def all_changed(count: int) -> pa.Array[Any]:
    """``_unchanged`` of rows of which every value was sent."""
    nulls: pa.Array[Any] = pa.nulls(count, META.field(UNCHANGED).type)
    return nulls


def assembled(relation: Relation, meta: list[pa.Array[Any]], values: Iterable[pa.Array[Any]]) -> pa.RecordBatch:
    """The rows, laid out as ``rows_schema``: the columns of ``META``, then the relation's, as binary or as strings.

    Raises DecodeError when a value is not valid UTF-8.
    """
    schema = rows_schema(column.name for column in relation.columns)
    columns = [_text(relation, number, column) for number, column in enumerate(values)]
    return pa.RecordBatch.from_arrays([*meta, *columns], schema=schema)


def _text(relation: Relation, number: int, values: pa.Array[Any]) -> pa.Array[Any]:
    try:
        return validated(values)
    except pa.ArrowInvalid:
        what = f"a value of column {relation.columns[number].name} is not valid UTF-8"
        raise DecodeError(what, table=f"{relation.schema}.{relation.name}", remedy=NOT_UTF8) from None


def validated(values: pa.Array[Any]) -> pa.Array[Any]:
    """Binary values as strings; strings as they are. Raises ArrowInvalid for a value that is not valid UTF-8."""
    # Even a cast to what it is already costs as much as a thousand values.
    strings: pa.Array[Any] = values if values.type == pa.string() else values.cast(pa.string())
    return strings


class Rows:
    """Rows of one relation on their way to Arrow.

    ``values`` holds row after row, which is faster than a list for every column. ``unchanged`` are indexes into it.
    """

    __slots__ = ("ops", "relation", "sequences", "unchanged", "values", "width")

    def __init__(self, relation: Relation) -> None:
        self.relation = relation
        self.width = len(relation.columns)
        self.values: list[bytes | None] = []
        self.unchanged: list[int] = []
        self.ops: list[str] = []
        self.sequences: list[int] = []

    def to_arrow(self, transactions: Sequence[tuple[int, Begin]]) -> pa.RecordBatch:
        """The rows, laid out as ``rows_schema``. Raises DecodeError when a value is not valid UTF-8.

        Each transaction comes with the first ``_seq`` that its rows can have.
        """
        sequences = np.array(self.sequences, np.int64)
        begins = np.array([first for first, _ in transactions], np.int64)
        of_row = np.searchsorted(begins, sequences, side="right") - 1
        lsns, times, xids = np.array([begin for _, begin in transactions], np.int64)[of_row].T
        meta: list[pa.Array[Any]] = [
            pa.array(self.ops, pa.string()),
            pa.array(sequences),
            pa.array(lsns),
            pa.array(xids),
            committed_at(times),
            self._unchanged(),
        ]
        values = (pa.array(self.values[number :: self.width], pa.binary()) for number in range(self.width))
        return assembled(self.relation, meta, values)

    def _unchanged(self) -> pa.Array[Any]:
        if not self.unchanged:
            return all_changed(len(self.ops))
        rows, columns = np.divmod(self.unchanged, self.width)
        counts = np.bincount(rows, minlength=len(self.ops))
        return unchanged(np.concatenate(([0], np.cumsum(counts))), columns)
