"""Changes are applied in the order in which they happened, whatever order they come in."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest

from catchment.changes.order import in_order
from catchment.model.batch import SEQ


def changes(*seq: Sequence[int]) -> list[pa.RecordBatch]:
    return [pa.record_batch({"_op": [str(one) for one in some], "_seq": pa.array(some, pa.int64())}) for some in seq]


@pytest.mark.parametrize("seq", [[[1, 2], [3]], [[2, 3], [1]], [[1, 4], [3], [2, 5]], [[7]], [[2, 5, 8], [1, 4, 9]]])
def test_changes_come_out_by_their_sequence(seq: list[list[int]]) -> None:
    rows = pa.Table.from_batches(in_order(changes(*seq)))
    wanted = sorted(one for some in seq for one in some)
    assert rows.column(SEQ).to_pylist() == wanted
    assert rows.column("_op").to_pylist() == [str(one) for one in wanted]


def test_nothing_stays_nothing() -> None:
    assert in_order([]) == []
