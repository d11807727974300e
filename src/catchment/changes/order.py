"""The order in which changes happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from catchment.model.batch import SEQ


def in_order(changes: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """The same changes of one table by ``_seq``: a refill's rows can stand beside the stream's."""
    if len(changes) < 2:
        return list(changes)
    seq = np.concatenate([change.column(SEQ).to_numpy() for change in changes])
    if np.all(seq[1:] >= seq[:-1]):
        return list(changes)
    order: Any = pa.array(np.argsort(seq, kind="stable"))
    return pa.Table.from_batches(changes).combine_chunks().take(order).to_batches()
