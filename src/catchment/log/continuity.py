"""Where a log's writer stands, and what may come next: the rules that every kind of log keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from uuid import UUID

from catchment.log.base import State, Tail
from catchment.model.batch import Batch
from catchment.model.errors import LogGap
from catchment.model.frontier import Frontier
from catchment.model.lsn import Lsn

NO_LOG = UUID(int=0)
"""The identity that ``wait`` reports while there is no log."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""``committed_at`` of a log in which nothing has been committed yet."""

NO_CHANGES: State = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a writer stands: behind the finished transactions, and how far within one that is not.

    ``offset`` and ``part`` are those of the last batch appended, finished or not; ``part`` is -1 between transactions.
    ``pending`` came with the parts of the unfinished transaction and counts when that is finished.
    """

    tail: Tail
    offset: int
    part: int
    pending: State

    @classmethod
    def at(cls, tail: Tail) -> Standing:
        """Between transactions, at the end of a log."""
        return cls(tail, tail.frontier.offset, -1, NO_CHANGES)

    @classmethod
    def start(cls, log: UUID) -> Standing:
        """At the beginning of a log that has just been made."""
        return cls.at(Tail(Frontier(log, 0, Lsn(0), EPOCH), MappingProxyType({})))

    @property
    def between_transactions(self) -> bool:
        return self.part < 0

    def step(self, source: str, batch: Batch, state: State) -> Standing:
        """Where the writer stands once it has appended this. Raises LogGap if it does not follow."""
        end = self.tail.frontier.lsn
        if batch.source != source:
            raise LogGap(f"a batch of source {batch.source} came to this log", source=source)
        if batch.after != end:
            raise LogGap(f"the log ends at {end}, the batch begins at {batch.after}", source=source)
        if batch.part != self.part + 1:
            raise LogGap(f"part {self.part + 1} of a transaction must come next, not {batch.part}", source=source)
        if batch.until < end or (batch.until > end and not batch.ends_transaction):
            raise LogGap(f"a batch from {end} on cannot end at {batch.until}", source=source)
        offset = self.offset + 1
        pending = {**self.pending, **state}
        if not batch.ends_transaction:
            return Standing(self.tail, offset, batch.part, pending)
        frontier = Frontier(self.tail.frontier.log, offset, batch.until, batch.committed_at)
        return Standing.at(Tail(frontier, merged(self.tail.state, pending)))


def merged(state: Mapping[str, bytes], changes: State) -> Mapping[str, bytes]:
    """The state after these changes; null has removed the key."""
    if not changes:
        return state
    return MappingProxyType({key: value for key, value in {**state, **changes}.items() if value is not None})
