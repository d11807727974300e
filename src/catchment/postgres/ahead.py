"""A stream that is read on while what came before is decoded and made durable."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from catchment.model.lsn import Lsn
from catchment.postgres.stream import Received, Stream

_AHEAD_SECONDS = 0.025


class ReadAhead:
    """Another stream, which a thread goes on reading while the caller works on what it got.

    A server sends until the socket is full, and one on the same machine holds some 270 changes, a millisecond or two:
    from then on the server would wait for us, above all for our disk. Only a stream that ``goes_on`` is read ahead, one
    piece at most; while it is, what is acknowledged is kept until the piece is there.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._reader = ThreadPoolExecutor(1, "read-ahead")  # starts its thread with the first piece
        self._ahead: Future[Received] | None = None
        self._owed: tuple[Lsn, bool] | None = None

    def receive(self, timeout: float) -> Received:
        received = self._stream.receive(timeout) if self._ahead is None else self._read_ahead(self._ahead)
        if received.goes_on:
            self._ahead = self._reader.submit(self._stream.receive, _AHEAD_SECONDS)
        return received

    def _read_ahead(self, ahead: Future[Received]) -> Received:
        """What was read meanwhile, which may be nothing; the stream is the caller's alone again."""
        self._ahead = None
        received = ahead.result()
        if self._owed is not None:
            self.acknowledge(*self._owed)
        return received

    def acknowledge(self, until: Lsn, ask: bool = False) -> None:
        if self._ahead is None or self._ahead.done():
            self._owed = None
            self._stream.acknowledge(until, ask)
        else:
            self._owed = (until, ask)

    def close(self) -> None:
        self._reader.shutdown()
        self._stream.close()
