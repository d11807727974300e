"""How far a target has got."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from catchment.model.lsn import Lsn


@dataclass(frozen=True, slots=True)
class Frontier:
    """The last batch that a target holds: its place in one log, and where that is in the source.

    ``committed_at`` is the commit time of the last transaction in it, by the source's clock. Offsets compare only
    within the same ``log``.
    """

    log: UUID
    offset: int
    lsn: Lsn
    committed_at: datetime

    def covers(self, other: Frontier) -> bool:
        """Whether a target that is here has already taken in the batch at ``other``."""
        return self.log == other.log and self.offset >= other.offset

    def precedes(self, other: Frontier) -> bool:
        """Whether the batch at ``other`` is the very next one after this."""
        return self.log == other.log and self.offset + 1 == other.offset
