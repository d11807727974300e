"""Values that PostgreSQL did not send, since they are large and did not change: taken from the rows as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from catchment.changes.cast import Typed
from catchment.changes.columns import Rows, concatenate, take
from catchment.targets.lake import datafile
from catchment.targets.lake.columns import EXACT, LakeColumn
from catchment.targets.lake.store import Store


@dataclass(frozen=True, slots=True)
class Left:
    """What is left out: the rows, by the position of the column.

    ``place``, aligned with all rows, says which of the rows found in the table a row was; -1 for none. Those are given
    by ``files``, the numbers of their files, and ``rows``, their positions in them.
    """

    out: Mapping[int, Rows]
    place: Rows
    files: Rows
    rows: Rows


def told_before(
    store: Store, paths: Mapping[int, str], columns: Sequence[LakeColumn], values: Sequence[Typed], left: Left
) -> list[Typed]:
    """The columns with what is left out filled in, where there was a row; ``paths``: of the files, by their numbers."""
    filled = list(values)
    names = [*(columns[position].name for position in left.out), EXACT]
    asked = np.unique(np.concatenate(list(left.out.values())))
    asked = asked[left.place[asked] >= 0]
    numbers = left.files[left.place[asked]]
    for number in np.unique(numbers).tolist():
        here = asked[numbers == number]
        found = datafile.read_rows(store, paths[number], names, left.rows[left.place[here]])
        for position, of in left.out.items():
            source = np.arange(len(left.place))
            wanted = np.isin(here, of)
            source[here[wanted]] = len(left.place) + np.flatnonzero(wanted)
            filled[position] = _chosen(filled[position], datafile.typed_in(found, columns[position]), source)
    return filled


def _chosen(own: Typed, other: Typed, source: Rows) -> Typed:
    """Values of one column, then of another, taken by their places behind each other."""
    exact = None
    if own.exact is not None or other.exact is not None:
        texts = [pa.nulls(len(each.values), pa.string()) if each.exact is None else each.exact for each in (own, other)]
        exact = take(concatenate(texts), source)
    return Typed(take(concatenate([own.values, other.values]), source), exact)
