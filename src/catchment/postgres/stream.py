"""The stream of one slot: messages in, acknowledgements out."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from catchment.model.errors import DecodeError, SlotBusy, SourceUnreachable
from catchment.model.lsn import Lsn
from catchment.postgres.bell import Bell
from catchment.postgres.copydata import KEEPALIVE, ROOM, consume, take_wal, wait_for_wal
from catchment.postgres.replication import ReplicationConnection
from catchment.wire.twin import Messages

_STATUS = struct.Struct("!cQQQqB")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MOST_BYTES = 4 * 2**20
_STATUS_SECONDS = 10.0
_GATHER_SECONDS = 0.015
_STEP_SECONDS = 0.005  # a local socket is full long before the gathering is over, if it turns out to be much

# So much at once is no single change that somebody waits for: what is gathered is cut into batches, and each of them
# costs as much as a thousand changes. Where the server goes on sending there are many of them.
_BULK_BYTES = 8 * 2**10
_BULK_SECONDS, _GOES_ON_SECONDS = 0.025, 0.06
_BULK_BYTES_A_SECOND = _BULK_BYTES / _BULK_SECONDS


@dataclass(frozen=True, slots=True)
class Received:
    """Some pgoutput messages in order, then perhaps a keepalive.

    ``position``: everything that the slot brings up to here has been sent; null without a keepalive.
    ``reply_requested``: the server wants an acknowledgement at once. ``sent_at``: the server's clock at the keepalive.
    ``goes_on``: the server was still sending when this was enough.
    """

    messages: Sequence[bytes]
    position: Lsn | None = None
    reply_requested: bool = False
    sent_at: datetime = _EPOCH
    goes_on: bool = False


class _Keepalive(NamedTuple):
    position: Lsn
    sent_at: datetime
    reply_requested: bool


class Stream(Protocol):
    """What the collect loop needs of a source."""

    def receive(self, timeout: float) -> Received:
        """Messages or a request as soon as they arrive, and the server's position if it has told it.

        After ``timeout`` seconds, or when woken, there may be nothing, or a position alone: to hear one earlier, ask.
        """
        ...

    def acknowledge(self, until: Lsn, ask: bool = False) -> None:
        """Tell the server that everything before ``until`` is durable here: when that is news, and on a timer.

        With ``ask`` in any case, and for a keepalive in return.
        """
        ...

    def close(self) -> None: ...


class SlotStream:
    """Streams a publication from a slot, transactions too large for the server's memory while they are in progress.

    Raises SourceUnreachable, SourceRefused, SlotBusy."""

    def __init__(
        self, replication: ReplicationConnection, slot: str, publication: str, start: Lsn, bell: Bell | None = None
    ) -> None:
        """``bell``: ends a ``receive`` to which nothing comes."""
        self._replication = replication
        self._bell = bell
        self._pgconn = replication.pgconn
        self._source = replication.translation.source
        self._acknowledged = Lsn(0)
        self._said = self._received = 0.0
        self._asked = True  # where the server is at first
        self._goes_on = False
        ((timeout,),) = replication.execute("SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'")
        # In milliseconds, 0 for never. The server asks at half of it, but a busy reader does not see the question.
        self._say_every = min(_STATUS_SECONDS, int(timeout) / 3000) if int(timeout) else _STATUS_SECONDS
        replication.execute(ROOM)
        quoted = '"' + publication.replace('"', '""').replace("'", "''") + '"'
        try:
            replication.execute(
                f'START_REPLICATION SLOT "{slot}" LOGICAL {start} '
                f"(proto_version '2', streaming 'on', publication_names '{quoted}', messages 'true')"
            )
        except SourceUnreachable as error:
            if "is active for PID" in error.what:
                raise SlotBusy(error.what, source=self._source) from None
            raise

    def receive(self, timeout: float) -> Received:
        messages = Messages()
        reply_requested = False
        size = 0
        is_bulk = self._goes_on
        window = _GOES_ON_SECONDS if is_bulk else _BULK_SECONDS
        until = time.monotonic() + window
        with self._replication.translation.around():
            position, taken = wait_for_wal(self._pgconn, messages, self._bell, timeout, self._asked)
            keepalive = None if position is None else self._keepalive(position)
            while True:
                size += taken.size
                if taken.size:
                    # A busy server says where it is after every few transactions; it matters at the end only.
                    keepalive = None
                if taken.other is not None:
                    keepalive = self._keepalive(taken.other)
                    reply_requested = reply_requested or keepalive.reply_requested
                elif taken.state < 0:
                    self._ended()
                elif taken.state == 0 and (is_bulk or not size or not self._more_belongs(size)):
                    break
                if size >= _MOST_BYTES:
                    break
                is_bulk = is_bulk or size >= _BULK_BYTES
                seconds = until - time.monotonic() if is_bulk else 0.0
                taken = take_wal(self._pgconn, messages, _MOST_BYTES - size, seconds)
        now = time.monotonic()
        if messages:
            self._received = now
        if reply_requested:
            self._said = 0.0  # the next acknowledgement is sent, news or not
        self._goes_on = size >= _MOST_BYTES or (size >= _BULK_BYTES_A_SECOND * window and now >= until)
        if keepalive is None:
            return Received(messages, reply_requested=reply_requested, goes_on=self._goes_on)
        self._asked = False
        return Received(messages, keepalive.position, reply_requested, keepalive.sent_at, self._goes_on)

    def _more_belongs(self, size: int) -> bool:
        """Whether to look for more, which belongs to what has come.

        A change that comes alone goes on at once; a thousand transactions a second would otherwise be a thousand
        batches, and each of them costs a write to the disk.
        """
        if size >= _BULK_BYTES:
            return True
        seconds = self._received + _GATHER_SECONDS - time.monotonic()
        time.sleep(max(0.0, min(seconds, _STEP_SECONDS)))
        if seconds <= 0 and not self._replication.wait_readable(0):
            return False
        consume(self._pgconn)
        return True

    def _keepalive(self, data: bytes) -> _Keepalive:
        if len(data) != KEEPALIVE.size or data[:1] != b"k":
            raise DecodeError("neither WAL data nor a keepalive", source=self._source)
        _, position, microseconds, reply = KEEPALIVE.unpack(data)
        return _Keepalive(Lsn(position), _EPOCH + timedelta(microseconds=microseconds), bool(reply))

    def _ended(self) -> None:
        """The server ended the stream: raise what it says."""
        while (result := self._pgconn.get_result()) is not None:
            self._replication.check(result)
        raise SourceUnreachable("the server ended the stream", source=self._source, remedy="it is tried again")

    def acknowledge(self, until: Lsn, ask: bool = False) -> None:
        now = time.monotonic()
        if until == self._acknowledged and not ask and now - self._said < self._say_every:
            return
        self._acknowledged, self._said, self._asked = until, now, self._asked or ask
        microseconds = int((time.time() - _EPOCH.timestamp()) * 1_000_000)
        with self._replication.translation.around():
            self._pgconn.put_copy_data(_STATUS.pack(b"r", until, until, until, microseconds, ask))
            self._pgconn.flush()

    def close(self) -> None:
        self._replication.close()
