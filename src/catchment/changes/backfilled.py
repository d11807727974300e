"""Rows that a backfill has read, in the layout of all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from catchment.model.batch import COMMITTED_AT, META, UNCHANGED, PackedRows, Place, TableRows, rows_schema
from catchment.model.table import Table


def as_rows(
    table: Table, columns: Sequence[pa.Array[Any]], first: Place, op: Literal["r", "d"] = "r"
) -> pa.RecordBatch:
    """Columns of text as ``r`` rows, or others, one behind the other from ``first`` on."""
    count = len(columns[0])
    schema = rows_schema(column.name for column in table.columns)
    meta: list[pa.Array[Any]] = [
        pa.repeat(op, count),
        pa.array(np.arange(first.seq, first.seq + count, dtype=np.int64)),
        pa.array(np.full(count, int(first.lsn), dtype=np.int64)),
        pa.array(np.full(count, first.xid, dtype=np.int64)),
        pa.repeat(pa.scalar(first.committed_at, META.field(COMMITTED_AT).type), count),
        pa.nulls(count, META.field(UNCHANGED).type),
    ]
    return pa.RecordBatch.from_arrays([*meta, *columns], schema=schema)


def held_schema(columns: int) -> pa.Schema:
    """The layout of rows that a backfill holds: so many columns of text, whatever their names."""
    return pa.schema([pa.field(str(position), pa.string()) for position in range(columns)])


def unpacked(rows: PackedRows) -> TableRows:
    """The same rows, laid out as all others. Raises pyarrow's errors where the message is none."""
    held = pa.ipc.read_record_batch(rows.message, held_schema(len(rows.table.columns)))
    return TableRows(rows.table, as_rows(rows.table, held.columns, rows.first), rows.refill)
