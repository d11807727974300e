"""What a run of changes amounts to, for a table without a key: a bag of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from catchment.changes.columns import codes, take
from catchment.changes.run import BEFORE, DELETE, Run
from catchment.model.batch import META, rows_schema
from catchment.model.table import Table


@dataclass(frozen=True, slots=True)
class NetBag:
    """What a run of changes amounts to for a table without a key. Null equals null, but not ''.

    ``added``: rows to insert, one for each copy. ``removed``: distinct rows to delete, none of them in ``added``;
    ``copies``, aligned with it: how many copies of each. Rows have the table's columns only.
    """

    added: pa.RecordBatch
    removed: pa.RecordBatch
    copies: pa.Int64Array


def coalesce_bag(table: Table, rows: Sequence[pa.RecordBatch]) -> NetBag:
    """Count how many copies of each row come and go. A run never ends between ``b`` and ``u``.

    Updates and deletes name their old row whole, in ``b`` and ``d``, which takes the replica identity FULL. Rows that
    are only read or created stay as they are and in their order.
    """
    whole = rows_schema(column.name for column in table.columns)
    run = Run.of(table, rows or [pa.RecordBatch.from_pylist([], whole)])
    schema = pa.schema(list(whole)[len(META) :])
    columns = [run.told(position) for position in range(len(table.columns))]
    everything = pa.RecordBatch.from_arrays(columns, schema=schema)
    leaves = (run.op == DELETE) | (run.op == BEFORE)
    if not leaves.any():
        return NetBag(everything, everything.slice(0, 0), pa.array([], pa.int64()))

    bag = codes(columns)
    distinct = int(bag.max()) + 1
    net = np.bincount(bag[~leaves], minlength=distinct) - np.bincount(bag[leaves], minlength=distinct)
    example = np.empty(distinct, dtype=np.int64)
    example[bag] = np.arange(len(bag))
    added = np.repeat(example, np.maximum(net, 0))
    removed = example[net < 0]
    return NetBag(
        pa.RecordBatch.from_arrays([take(column, added) for column in columns], schema=schema),
        pa.RecordBatch.from_arrays([take(column, removed) for column in columns], schema=schema),
        pa.array(-net[net < 0]),
    )
