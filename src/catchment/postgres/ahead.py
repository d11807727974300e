"""A stream that is read on while what came before is decoded and made durable."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import cast

from catchment.model.lsn import Lsn
from catchment.postgres.stream import Received, Stream

_AHEAD_SECONDS = 0.025
_PIECES = 2  # the next is begun as soon as one has ended: nobody has to take it first
_STEPS_BACK = 10

_own = threading.local()


def reader() -> Executor:
    """The thread that reads ahead for the calling one, one stream after the other; begun with the first piece.

    The caller steps back behind it then, for good. It works for some milliseconds at a time, and a scheduler that is
    fair lets it; but a local socket is full in half of one, and a server would wait. Who has stepped back can begin
    no thread that comes first, so this one stays for as long as its caller.
    """
    if not hasattr(_own, "reader"):
        _own.reader = ThreadPoolExecutor(1, "read-ahead", _step_back, (threading.get_native_id(),))
    return cast("Executor", _own.reader)


def _step_back(thread: int) -> None:
    if sys.platform == "linux":  # elsewhere a process has a priority, but not each of its threads
        with suppress(OSError):  # where that is not allowed all is as it was
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _STEPS_BACK)


class ReadAhead:
    """Another stream, which a thread goes on reading while the caller works on what it got.

    A server sends until the socket is full, and one on the same machine holds some 270 changes, a millisecond or two:
    from then on the server would wait for us, above all for our disk. Only a stream that ``goes_on`` is read ahead;
    while it is, what is acknowledged is passed on after the piece.
    """

    def __init__(self, stream: Stream, reader: Executor) -> None:
        self._stream = stream
        self._reader = reader
        self._ahead: deque[Future[Received]] = deque()
        self._owed: deque[tuple[Lsn, bool]] = deque(maxlen=1)

    def receive(self, timeout: float) -> Received:
        received = self._ahead.popleft().result() if self._ahead else self._stream.receive(timeout)
        while received.goes_on and len(self._ahead) < _PIECES:
            self._ahead.append(self._reader.submit(self._read_on))
        return received

    def _read_on(self) -> Received:
        received = self._stream.receive(_AHEAD_SECONDS)
        self._pass_on()
        return received

    def acknowledge(self, until: Lsn, ask: bool = False) -> None:
        self._owed.append((until, ask))
        if all(piece.done() for piece in self._ahead):
            self._pass_on()

    def _pass_on(self) -> None:
        """Tell the server what was acknowledged last; the stream is nobody else's now."""
        if self._owed:
            self._stream.acknowledge(*self._owed.pop())

    def close(self) -> None:
        wait(self._ahead)
        self._stream.close()
