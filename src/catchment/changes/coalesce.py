"""What a run of changes amounts to, for a table with a key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catchment.changes.columns import Rows, Truths, codes, take
from catchment.changes.run import BEFORE, CREATE, DELETE, READ, Run
from catchment.model.batch import META, UNCHANGED, rows_schema
from catchment.model.table import Table


@dataclass(frozen=True, slots=True)
class Net:
    """What a run of changes amounts to for a table with a key. All values are the texts of the run.

    ``gone``: key columns, in the order of ``table.key_positions``, of rows that the target must delete first: rows
    that were deleted, and the old places of rows whose key changed. A row born in the run is not among them.

    ``rows``: rows as they stand at the end, laid out as ``TableRows.data``, at most one per key, in the order of
    their last changes, to be inserted or to replace what has their key. ``_unchanged`` names what no change of the
    run told: the target takes it, before it deletes anything, from its row at ``origin``; where that is null at the
    row's own key.

    ``origin``: key columns aligned with ``rows``: the key under which the target knew the row where it is another
    text than the row's own, else null; null too when the row was born in the run.
    """

    gone: list[pa.Array[Any]]
    rows: pa.RecordBatch
    origin: list[pa.Array[Any]]

    unborn: list[pa.Array[Any]]
    """Key columns of rows that were created in the run and that it does not tell whole, so that no target has them."""

    in_part: Truths
    """Aligned with ``rows``: whether some change told the row only in part, though all of them may tell it whole."""

    created_in_part: Truths
    """Aligned with ``rows``: whether the change that created the row did."""

    begun_by: npt.NDArray[np.uint8]
    """Aligned with ``rows``: the first change of each, as in ``Run.op``; 0 where the run had left its key before."""


def coalesce(table: Table, rows: Sequence[pa.RecordBatch]) -> Net:
    """Follow the rows of a table with a key through consecutive changes. A run never ends between ``b`` and ``u``.

    Keys are compared as texts: 1.0 and 1.00 are two keys. A row created with values left out (a row filter let it in)
    is ``unborn`` while the run does not tell them.
    """
    schema = rows_schema(column.name for column in table.columns)
    run = Run.of(table, rows or [pa.RecordBatch.from_pylist([], schema)])
    keys = [run.told(position) for position in table.key_positions]
    key = codes(keys)

    row = np.flatnonzero(run.op != BEFORE)
    told_key = row - run.linked[row]
    op = run.op[row]
    paths = _follow(op, key[told_key], key[row])

    sources = {position: source[row] for position, source in run.source.items()}
    in_part = np.zeros(len(op), dtype=np.bool_)
    for source in sources.values():
        in_part[source < 0] = True
    created_in_part = in_part & (op == CREATE)
    in_part[paths.first[in_part]] = True
    whole = _fill(sources, op, paths) if sources else np.ones(len(op), dtype=np.bool_)
    stands = paths.stands & whole

    last = np.flatnonzero(paths.last)
    unborn = row[last[paths.stands[last] & ~whole[last]]]
    first = paths.first[last]
    told = told_key[first]
    met = ~paths.fresh[first] & (op[first] != CREATE)
    moved = key[told] != key[row[last]]
    remains = stands[last]
    gone = told[met & (moved | ~remains)]
    origin = np.where(met & moved & (op[first] != READ), told, -1)[remains]
    final = last[remains]
    return Net(
        [take(column, gone) for column in keys],
        _rows(run, schema, row[final], {position: source[final] for position, source in sources.items()}),
        [take(column, origin) for column in keys],
        [take(column, unborn) for column in keys],
        in_part[paths.first[final]],
        created_in_part[paths.first[final]],
        np.where(paths.fresh[paths.first[final]], np.uint8(0), op[paths.first[final]]),
    )


@dataclass(frozen=True, slots=True)
class _Paths:
    """How events belong together that happen to the same row; an event is any change, a ``b`` part of its ``u``.

    ``first``: the row's first event. ``last``: no later event happens to the row. ``stands``: the row exists after
    the run as this event left it. ``fresh``: the event takes a key that the run left empty before.
    """

    first: Rows
    last: Truths
    stands: Truths
    fresh: Truths


def _follow(op: npt.NDArray[np.uint8], taken: Rows, left: Rows) -> _Paths:
    """``taken``: the key at which an event finds its row. ``left``: the key at which it leaves it, unless it deletes.

    An event touches ``taken`` and, if it is another, ``left``. Sorted by key and time, the touch before that of an
    event that takes a key belongs to the event that left the row there.
    """
    count = len(op)
    bits = (2 * count).bit_length()
    moves = np.flatnonzero((taken != left) & (op != DELETE))
    touches = np.concatenate([taken << bits | 2 * np.arange(count), left[moves] << bits | 2 * moves + 1])
    touches.sort()
    event = (touches & (1 << bits) - 1) >> 1
    arrives = touches & 1 == 1
    leaves = arrives | ((taken == left) & (op != DELETE))[event]
    same_key = touches[1:] >> bits == touches[:-1] >> bits

    follows = np.flatnonzero(same_key & ~arrives[1:])
    found = leaves[follows]
    previous, now = event[follows], event[follows + 1]
    fresh = np.zeros(count, dtype=np.bool_)
    fresh[now[~found]] = True
    first = np.arange(count)
    first[now[found]] = previous[found]
    last = np.ones(count, dtype=np.bool_)
    last[previous[found]] = False

    last_of_key = np.ones(len(touches), dtype=np.bool_)
    last_of_key[:-1] = ~same_key
    stands = np.zeros(count, dtype=np.bool_)
    stands[event[leaves & last_of_key]] = True
    while True:
        earlier = first[first]
        if np.array_equal(earlier, first):
            return _Paths(first, last, stands, fresh)
        first = earlier


def _fill(sources: dict[int, Rows], op: npt.NDArray[np.uint8], paths: _Paths) -> Truths:
    """Let rows that stand take values left out from their latest earlier events, in place; false where the row was
    born in the run and is still not complete.
    """
    count = len(op)
    incomplete = np.zeros(count, dtype=np.bool_)
    for source in sources.values():
        incomplete |= source < 0
    wanted = np.zeros(count, dtype=np.bool_)
    wanted[paths.first[incomplete & paths.stands]] = True
    event = np.flatnonzero(wanted[paths.first])
    event = event[np.argsort(paths.first[event], kind="stable")]

    place = np.arange(len(event))
    begins = (paths.first[event] == event) | (op[event] == CREATE)
    begin = np.maximum.accumulate(np.where(begins, place, 0))
    complete = np.ones(count, dtype=np.bool_)
    for source in sources.values():
        own = source[event]
        teller = np.maximum.accumulate(np.where(own >= 0, place, -1))
        source[event] = np.where(teller >= begin, own[teller], -1)
        complete &= source >= 0
    born = np.zeros(count, dtype=np.bool_)
    begun_by = event[begin]
    born[event] = (op[begun_by] == CREATE) | paths.fresh[begun_by]
    return complete | ~born


def _rows(run: Run, schema: pa.Schema, rows: Rows, sources: dict[int, Rows]) -> pa.RecordBatch:
    batch = pa.RecordBatch.from_arrays([*run.meta, *run.columns], schema=schema)
    positions: Any = pa.array(rows)
    columns = batch.columns if len(rows) == len(run.op) else batch.take(positions).columns
    columns[UNCHANGED] = _unchanged(sources, len(rows))
    for position, source in sources.items():
        columns[len(META) + position] = take(run.columns[position], source)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _unchanged(sources: dict[int, Rows], count: int) -> pa.Array[Any]:
    if not sources:
        return pa.array([None] * count, META.types[UNCHANGED])
    left_out = np.zeros((count, len(sources)), dtype=np.bool_)
    positions = np.array(sorted(sources), dtype=np.int16)
    for place, position in enumerate(positions.tolist()):
        left_out[:, place] = sources[position] < 0
    lengths = left_out.sum(axis=1)
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
    values = positions[np.nonzero(left_out)[1]]
    lists: Any = pa.ListArray
    result: pa.Array[Any] = lists.from_arrays(offsets, values, mask=pa.array(lengths == 0))
    return result
