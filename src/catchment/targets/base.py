"""The contract of a target: something built from the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from catchment.model.batch import Batch
from catchment.model.frontier import Frontier


@dataclass(frozen=True, slots=True)
class Pace:
    """When a target wants to be served: after ``delay`` seconds or ``bytes`` waiting, whichever is first.

    ``bytes`` also bounds what one ``apply`` is given, except that a transaction is never divided.
    """

    delay: float
    bytes: int


class Target(Protocol):
    """The target itself is the truth about how far it has got: rows and frontier change in one commit."""

    @property
    def name(self) -> str:
        """As in the configuration; refills are addressed by it."""
        ...

    @property
    def pace(self) -> Pace: ...

    @property
    def scope(self) -> Literal["source", "hub"]:
        """``hub``: one loop over all sources."""
        ...

    def frontier(self, source: str) -> Frontier | None:
        """Where the target stands for this source; null when it has never heard of it. Raises TargetError."""
        ...

    def apply(self, source: str, batches: Iterable[tuple[Frontier, Batch]]) -> None:
        """Take in whole transactions, lazily. Returns when they are durable; raises TargetError.

        Batches that the target has already are skipped. A batch that does not follow the target's frontier directly
        means that all it has of this source is out of date until a refill brings it anew: it stays readable as it is.
        """
        ...

    def out_of_date(self, source: str) -> Mapping[str, str | None]:
        """Tables that wait for a refill though none is under way, by their names in the source. Raises TargetError.

        Each with the sentence of what a person has to do first; null when a refill is all it takes.
        """
        ...

    def forget(self, source: str) -> None:
        """Remove everything built from this source."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...
