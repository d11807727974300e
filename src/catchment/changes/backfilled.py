"""Rows that a backfill has read, in the layout of all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from catchment.model.batch import COMMITTED_AT, META, UNCHANGED, rows_schema
from catchment.model.frontier import Frontier
from catchment.model.table import Table


def as_rows(
    table: Table, columns: Sequence[pa.Array[Any]], after: int, at: Frontier, op: Literal["r", "d"] = "r"
) -> pa.RecordBatch:
    """Columns of text as ``r`` rows, or others, numbered from ``after + 1``, standing where the log stands."""
    count = len(columns[0])
    schema = rows_schema(column.name for column in table.columns)
    meta: list[pa.Array[Any]] = [
        pa.repeat(op, count),
        pa.array(np.arange(after + 1, after + 1 + count, dtype=np.int64)),
        pa.array(np.full(count, int(at.lsn), dtype=np.int64)),
        pa.array(np.zeros(count, dtype=np.int64)),
        pa.repeat(pa.scalar(at.committed_at, META.field(COMMITTED_AT).type), count),
        pa.nulls(count, META.field(UNCHANGED).type),
    ]
    return pa.RecordBatch.from_arrays([*meta, *columns], schema=schema)
