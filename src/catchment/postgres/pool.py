"""A few sessions that many threads share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from threading import BoundedSemaphore
from typing import Generic, Protocol, TypeVar


class Session(Protocol):
    """A connection, or something that owns one."""

    def close(self) -> None: ...


S = TypeVar("S", bound=Session)


class Pool(Generic[S]):
    """At most ``most`` sessions at a time, opened when one is needed and then kept."""

    def __init__(self, most: int) -> None:
        self._places = BoundedSemaphore(most)
        self._idle: list[S] = []
        self._closed = False

    @contextlib.contextmanager
    def lend(self, open_one: Callable[[], S]) -> Iterator[S]:
        """A session for the length of the block; waits while all are lent.

        One whose block raised is closed: nobody inherits a transaction or a state that is half done.
        """
        with self._places:
            try:
                session = self._idle.pop()
            except IndexError:
                session = open_one()
            try:
                yield session
            except BaseException:
                session.close()
                self._close_idle()  # what broke this one, a restart for instance, has broken them too
                raise
            self._idle.append(session)
            if self._closed:
                self._close_idle()

    def close(self) -> None:
        """Close all sessions: those that are lent when they come back."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()
