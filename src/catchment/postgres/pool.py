"""A few sessions that many threads share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
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


class Pool(Generic[S]):
    """At most ``most`` sessions at a time, opened when one is needed and then kept for an hour, used or not."""

    def __init__(self, most: int) -> None:
        self._places = BoundedSemaphore(most)
        self._lock = Lock()
        self._idle: list[tuple[S, float]] = []
        self._closed = False

    @contextlib.contextmanager
    def lend(self, open_one: Callable[[], S]) -> Iterator[S]:
        """A session for the length of the block; waits while all are lent.

        One whose block raised is closed: nobody inherits a transaction or a state that is half done.
        """
        with self._places:
            self._close_idle(opened_before=monotonic() - _OLDEST)
            with self._lock:
                kept = self._idle.pop() if self._idle else None
            session, opened = kept or (open_one(), monotonic())
            try:
                yield session
            except BaseException:
                session.close()
                self._close_idle()  # what broke this one, a restart for instance, has broken them too
                raise
            self._idle.append((session, opened))
            if self._closed:
                self._close_idle()

    def close(self) -> None:
        """Close all sessions: those that are lent when they come back."""
        self._closed = True
        self._close_idle()

    def _close_idle(self, opened_before: float = inf) -> None:
        with self._lock:
            old = [kept for kept in self._idle if kept[1] < opened_before]
            for kept in old:
                self._idle.remove(kept)
        for session, _ in old:
            session.close()
