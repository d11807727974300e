"""The contract of the change log: the durable, ordered, replayable record of each source's batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from catchment.model.batch import Batch
from catchment.model.frontier import Frontier

State = Mapping[str, bytes | None]
"""What changed in the collector's state: small versioned JSON by key; null removes the key."""


@dataclass(frozen=True, slots=True)
class Tail:
    """All that a restart needs: where the log ends and what was saved with its last batches.

    The frontier of a log that has just been made has offset 0 and LSN 0.
    """

    frontier: Frontier
    state: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Span:
    """What there is to read behind an offset.

    ``log``: the log's identity. ``first``: the first offset that is kept (1 in a log that was never trimmed, also when
    it is empty). ``last``: the end of a finished transaction, equal to ``after`` when there is nothing. ``bytes``:
    stored size of the batches behind ``after`` up to ``last``. ``oldest``: when the first of them was appended, null
    when there is none.
    """

    log: UUID
    first: int
    last: int
    bytes: int
    oldest: datetime | None


class LogWriter(Protocol):
    """Exclusive right to append to one source's log. Opening discards an unfinished transaction."""

    @property
    def tail(self) -> Tail:
        """The end of the last finished transaction, and the state saved up to there."""
        ...

    def append(self, batch: Batch, state: State = ...) -> int:
        """Make the batch and what changed in the state durable, together; return the batch's offset.

        Packed rows are read back behind the batch's other rows, laid out as these are.
        State that comes with a part of an unfinished transaction is discarded with it. Raises LogGap when the batch
        does not begin where the last one ended, LogFull when there is no space: nothing is written then.
        """
        ...

    def close(self) -> None:
        """Give up the right to write."""
        ...


class Log(Protocol):
    """All sources' logs. Safe to share between threads."""

    def open_writer(self, source: str) -> LogWriter:
        """Raises LogBusy while another writer, in whatever process, has it open."""
        ...

    def wait(self, source: str, after: int, timeout: float, most_bytes: int = ...) -> Span:
        """What there is to read behind ``after``: at once when there is something, else within ``timeout`` seconds.

        At most ``most_bytes``, but at least one whole transaction. ``wake`` ends the waiting.
        """
        ...

    def wake(self, source: str) -> None:
        """Have everybody in this process who waits for this source's log look up."""
        ...

    def read(self, source: str, after: int, through: int) -> Iterator[tuple[Frontier, Batch]]:
        """The batches of finished transactions behind ``after`` up to ``through``. Raises LogTrimmed, LogCorrupt.

        No lock and no cursor is held between two batches.
        """
        ...

    def state(self, source: str) -> Mapping[str, bytes]:
        """What the writer has saved with its finished transactions; empty when there is no log yet."""
        ...

    def trim(self, source: str, through: int) -> int:
        """Forget batches up to ``through`` as far as whole files allow; return the first offset kept."""
        ...

    def excess(self, source: str, most_bytes: int) -> int:
        """The offset to trim through so that at most ``most_bytes`` stay; 0 when nothing has to go."""
        ...

    def remove(self, source: str) -> None:
        """Forget this source's log and state. Raises LogBusy while a writer has it open."""
        ...
