"""The contract of the hub's state: what loops say about themselves, and what people ask of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

DROPPED = "dropped"
"""The state of a source that was removed while the hub runs: it says nothing more of itself."""


@dataclass(frozen=True, slots=True)
class Status:
    """What one loop says about itself: a collect loop (``target`` is null) or a deliver loop.

    ``remedy``: the whole sentence of what is wrong and what to do; null when nothing is. ``beat``: when the loop last
    gave a sign of life; null while it waits for a server inside one long statement, which TCP keepalive watches.
    ``detail``: whatever JSON can hold; never a row's values. ``reported_at``: when the hub was told, filled in by it.
    Times are aware.
    """

    source: str
    target: str | None
    worker: str
    state: str
    remedy: str | None
    beat: datetime | None
    detail: Mapping[str, Any] = field(default_factory=dict)
    reported_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody asked a running hub to do. It is never deleted: all of them are the audit trail.

    ``by``: who asked. ``worker``: who has taken it; null while nobody has. ``claimed_at``: when somebody first did.
    ``outcome``: one sentence; null until it is finished. Times are aware.
    """

    id: int
    kind: str
    source: str
    arguments: Mapping[str, Any]
    by: str
    asked_at: datetime
    worker: str | None = None
    claimed_at: datetime | None = None
    finished_at: datetime | None = None
    outcome: str | None = None


class Hub(Protocol):
    """Safe to share between threads, and between processes where it is kept in a file or a server. Raises HubError."""

    def report(self, worker: str, statuses: Sequence[Status]) -> None:
        """Put these in the place of all that this worker reported before, in one transaction.

        An object that was reported before says what it said then: what has not changed costs nothing.
        """
        ...

    def statuses(self) -> Sequence[Status]:
        """What every worker last reported, by source, then target, the collect loop first."""
        ...

    def forget_worker(self, worker: str) -> None:
        """Remove what this worker reported: it has ended."""
        ...

    def request(self, kind: str, source: str, arguments: Mapping[str, Any], by: str) -> int:
        """Ask for something; return the request's id. Durable on return."""
        ...

    def unclaimed(self) -> Collection[tuple[str, str]]:
        """What was asked for and nobody has taken: of which source, and of which kind. Cheap enough to look often."""
        ...

    def claim(self, worker: str, sources: Sequence[str], kinds: Sequence[str]) -> Request | None:
        """Take the oldest request for one of these sources, of one of these kinds, that nobody has taken.

        Each request is given to one worker only. Null when there is none.
        """
        ...

    def release(self, source: str) -> None:
        """Let what was claimed for this source and not finished be claimed again: whoever had it has forgotten it."""
        ...

    def withdraw(self, request: int, outcome: str) -> bool:
        """Record that it is no longer wanted: true if nobody had ever claimed it, who will not any more. Durable then.

        False when it is under way, or finished: nothing is recorded.
        """
        ...

    def finish(self, request: int, outcome: str) -> None:
        """Record how it ended. Durable on return."""
        ...

    def find(self, request: int) -> Request:
        """The request as it stands. Raises HubError when there is none with this id."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...
