"""What the frontier file of a feed says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from catchment.model.frontier import Frontier
from catchment.model.lsn import Lsn

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Committed:
    """How far a feed has got, and which bytes of its files belong to it.

    The first ``length`` bytes of the active file count, and it will be file number ``next`` when it is rotated. A null
    ``frontier`` means that nothing counts, whatever the files hold: the feed is about to begin, or is being removed.
    """

    frontier: Frontier | None
    length: int
    next: int

    def to_bytes(self) -> bytes:
        """One JSON object, as docs/reference/feed.md describes it."""
        frontier = self.frontier
        value = {
            "version": _VERSION,
            "log": str(frontier.log) if frontier else None,
            "offset": frontier.offset if frontier else None,
            "lsn": str(frontier.lsn) if frontier else None,
            "committed_at": frontier.committed_at.isoformat() if frontier else None,
            "length": self.length,
            "next": self.next,
        }
        return json.dumps(value).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what ``to_bytes`` made. Raises ValueError for anything else."""
        try:
            value = json.loads(data)
            if value["version"] != _VERSION:
                raise ValueError("a version that is not known here")
            frontier = None
            if value["log"] is not None:
                committed_at = datetime.fromisoformat(value["committed_at"])
                frontier = Frontier(UUID(value["log"]), int(value["offset"]), Lsn.parse(value["lsn"]), committed_at)
            return cls(frontier, int(value["length"]), int(value["next"]))
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError("a field is missing or is not what it should be") from error


BEGINNING = Committed(frontier=None, length=0, next=1)
