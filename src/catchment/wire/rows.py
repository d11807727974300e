"""Decoded rows on their way to Arrow columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from catchment.model.batch import META, UNCHANGED, rows_schema
from catchment.model.errors import NOT_UTF8, DecodeError
from catchment.wire.control import EPOCH, Begin
from catchment.wire.messages import Relation

_EPOCH_IN_ARROW = int(EPOCH.timestamp()) * 1_000_000


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
        schema = rows_schema(column.name for column in self.relation.columns)
        arrays: list[pa.Array[Any]] = [
            pa.array(self.ops, pa.string()),
            pa.array(sequences),
            pa.array(lsns),
            pa.array(xids),
            pa.array(times + _EPOCH_IN_ARROW).cast(pa.timestamp("us", tz="UTC")),
            self._unchanged(),
            *(self._column(number) for number in range(self.width)),
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _column(self, number: int) -> pa.Array[Any]:
        values = pa.array(self.values[number :: self.width], pa.binary())
        try:
            strings: pa.Array[Any] = values.cast(pa.string())
        except pa.ArrowInvalid:
            what = f"a value of column {self.relation.columns[number].name} is not valid UTF-8"
            table = f"{self.relation.schema}.{self.relation.name}"
            raise DecodeError(what, table=table, remedy=NOT_UTF8) from None
        return strings

    def _unchanged(self) -> pa.Array[Any]:
        kind = META.field(UNCHANGED).type
        lists: pa.Array[Any]
        if self.unchanged:
            rows, columns = np.divmod(self.unchanged, self.width)
            counts = np.bincount(rows, minlength=len(self.ops))
            offsets = pa.array(np.concatenate(([0], np.cumsum(counts))), pa.int32())
            numbers = pa.array(columns, pa.int16())
            lists = pa.ListArray.from_arrays(offsets, numbers, type=kind, mask=pa.array(counts == 0))
        else:
            lists = pa.nulls(len(self.ops), kind)
        return lists
