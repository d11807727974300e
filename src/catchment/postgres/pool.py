"""A few sessions that many threads share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from threading import BoundedSemaphore, Lock
from time import monotonic
from typing import Generic, Protocol, TypeVar

_OLDEST = 3600.0
"""Seconds. No vacuum reaches the temporary tables of another session: they keep the server from using numbers of
transactions again, and it takes no more changes when it runs out of them.

https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-WRAPAROUND
"""


class Session(Protocol):
    """A connection, or something that owns one."""

    def close(self) -> None: ...


S = TypeVar("S", bound=Session)


@dataclass(slots=True)
class _Place(Generic[S]):
    """For one session; ``kept``: the idle one, and when it was opened."""

    lent: bool = False
    kept: tuple[S, float] | None = None


class Pool(Generic[S]):
    """At most ``most`` sessions at a time, opened when one is needed and then kept for an hour, used or not.

    Each source has its place, which others share when they are many: a session has not to do with all of their tables.
    """

    def __init__(self, most: int) -> None:
        self._free = BoundedSemaphore(most)
        self._lock = Lock()
        self._places = [_Place[S]() for _ in range(most)]
        self._place_of: dict[str | None, _Place[S]] = {}
        self._closed = False

    @contextlib.contextmanager
    def lend(self, source: str | None, open_one: Callable[[], S]) -> Iterator[S]:
        """A session for the length of the block, any other while the source's own is lent; waits while all are.

        One whose block raised is closed: nobody inherits a transaction or a state that is half done.
        """
        with self._free:
            self._close_idle(opened_before=monotonic() - _OLDEST)
            place = self._take(source)
            try:
                session, opened = place.kept or (open_one(), monotonic())
                place.kept = None
                try:
                    yield session
                except BaseException:
                    session.close()
                    self._close_idle()  # what broke this one, a restart for instance, has broken them too
                    raise
                place.kept = session, opened
            finally:
                place.lent = False
            if self._closed:
                self._close_idle()

    def close(self) -> None:
        """Close all sessions: those that are lent when they come back."""
        self._closed = True
        self._close_idle()

    def _take(self, source: str | None) -> _Place[S]:
        with self._lock:
            place = self._place_of.setdefault(source, self._places[len(self._place_of) % len(self._places)])
            if place.lent:
                place = max((one for one in self._places if not one.lent), key=lambda one: one.kept is not None)
            place.lent = True
            return place

    def _close_idle(self, opened_before: float = inf) -> None:
        with self._lock:
            idle = [(place, place.kept) for place in self._places if place.kept and not place.lent]
            old = [(place, session) for place, (session, opened) in idle if opened < opened_before]
            for place, _ in old:
                place.kept = None
        for _, session in old:
            session.close()
