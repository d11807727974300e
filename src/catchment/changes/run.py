"""A run of one table's changes as whole columns: which row is what, and which row tells a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from catchment.changes.columns import Rows, Truths, concatenate, letters, take
from catchment.model.batch import META, OP, UNCHANGED
from catchment.model.table import ReplicaIdentity, Table

CREATE, READ, DELETE, BEFORE = (ord(op) for op in "crdb")
"""Values of ``_op`` as ``Run.op`` has them."""


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive changes of one version of a table; a ``b`` stands directly before its ``u``.

    ``linked`` marks the rows before which a ``b`` stands. ``source`` says, by position in ``table.columns`` and only
    for columns that some row leaves out, which row tells the value: the row itself; for a value left out its ``b``
    if that tells it, else -1. Under FULL a ``b`` is the whole old row, else only its key counts.
    https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
    """

    op: npt.NDArray[np.uint8]
    linked: Truths
    meta: list[pa.Array[Any]]
    columns: list[pa.Array[Any]]
    source: dict[int, Rows]

    @classmethod
    def of(cls, table: Table, batches: Sequence[pa.RecordBatch]) -> Self:
        """Put at least one batch, laid out as ``TableRows.data``, one behind the other: at most 2 GiB a column."""
        width = len(META) + len(table.columns)
        fields = [concatenate([batch.column(field) for batch in batches]) for field in range(width)]
        op = letters(fields[OP])
        linked = np.zeros(len(op), dtype=np.bool_)
        linked[1:] = op[:-1] == BEFORE
        source = _sources(table, fields[UNCHANGED], linked)
        return cls(op, linked, fields[: len(META)], fields[len(META) :], source)

    def told(self, position: int) -> pa.Array[Any]:
        """A column, with values left out taken from ``b``; null where that does not tell them."""
        source = self.source.get(position)
        return self.columns[position] if source is None else take(self.columns[position], source)


def rows_leaving_out(unchanged: pa.Array[Any]) -> dict[int, Rows]:
    """The rows that leave a column's value out, by the column's position in ``table.columns``."""
    if unchanged.null_count == len(unchanged):
        return {}
    rows = pc.list_parent_indices(unchanged).to_numpy()
    positions = pc.list_flatten(unchanged).to_numpy()
    return {position: rows[positions == position] for position in np.unique(positions).tolist()}


def _sources(table: Table, unchanged: pa.Array[Any], linked: Truths) -> dict[int, Rows]:
    sources = {}
    for position, rows in rows_leaving_out(unchanged).items():
        source = np.arange(len(unchanged))
        source[rows] = -1
        if table.identity is ReplicaIdentity.FULL or position in table.key_positions:
            after_before = rows[linked[rows]]
            source[after_before] = source[after_before - 1]
        sources[position] = source
    return sources
