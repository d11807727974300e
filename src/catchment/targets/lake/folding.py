"""Which files of a table are worth writing anew as one: readers pay for each file, and for rows that are deleted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from catchment.targets.lake.delta import DataFile

_SMALLEST_TIER = 64 << 10
_LARGE = 16 << 20
_MOST_AT_ONCE = 32 << 20
_FILES = 16
_BITS_OF_A_TIER = 4


def due(files: Iterable[DataFile]) -> Sequence[DataFile]:
    """Sixteen files of about one size, none of them large, or one that is mostly deleted; none when there is nothing.

    A row is so written again once for each sixteenfold of its file's size, whatever the size of the table.
    """
    tiers: dict[int, list[DataFile]] = defaultdict(list)
    for file in files:
        if file.deleted is not None and 2 * file.deleted.rows > file.rows:
            return [file]
        if file.size < _LARGE:
            tiers[max(file.size, _SMALLEST_TIER).bit_length() // _BITS_OF_A_TIER].append(file)
    return next((_together(tier) for tier in tiers.values() if len(tier) >= _FILES), [])


def _together(tier: Sequence[DataFile]) -> Sequence[DataFile]:
    total = 0
    chosen: list[DataFile] = []
    for file in tier:
        total += file.size
        if total > _MOST_AT_ONCE and len(chosen) > 1:
            break
        chosen.append(file)
    return chosen
