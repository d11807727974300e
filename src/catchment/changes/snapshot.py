"""Which transactions a snapshot sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

_EPOCH = 1 << 32


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a ``pg_snapshot`` sees, in 64-bit ``xid8`` numbers.

    All below ``xmin`` had ended, none from ``xmax`` on had begun; of those between, ``in_progress`` had not ended.
    https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT
    """

    xmin: int
    xmax: int
    in_progress: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``'xmin:xmax:xip,xip'``. Raises ValueError for anything else."""
        xmin, xmax, in_progress = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(xid) for xid in in_progress.split(",") if xid))

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.in_progress)))}"

    def sees_one_open_in(self, later: Snapshot) -> bool:
        """Whether it sees a transaction that is still in progress in a later one: one whose commit waits in the WAL."""
        return any(xid < self.xmax and xid not in self.in_progress for xid in later.in_progress)

    def sees(self, xids: npt.NDArray[np.int64] | Sequence[int]) -> npt.NDArray[np.bool_]:
        """One truth for each 32-bit xid, as the stream carries them: whether what it committed is visible.

        PostgreSQL keeps all xids in use within 2**31 of each other, so the 64-bit number meant is the nearest to
        ``xmax``. https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND
        """
        given = np.asarray(xids, dtype=np.int64)
        whole = self.xmax + (given - self.xmax + _EPOCH // 2) % _EPOCH - _EPOCH // 2
        ended = ~np.isin(whole, np.array(sorted(self.in_progress), dtype=np.int64))
        return (whole < self.xmin) | (whole < self.xmax) & ended
