"""Transactions that a server sends before they are committed, in blocks that stand between other transactions.

From protocol version 2 on a server streams what would not fit its memory instead of writing it to its own disk. This
takes the blocks apart: what is inside becomes the messages that protocol version 1 has, to be put aside by transaction
until its commit. https://www.postgresql.org/docs/current/protocol-logical-replication.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

from catchment.model.errors import DecodeError
from catchment.wire.control import check_end
from catchment.wire.twin import kinds

_START = Struct(">BIB")
_STOP = Struct(">B")
_COMMIT = Struct(">BIBqqq")
_ABORT = Struct(">BII")
_BEGIN = Struct(">BqqI")
_PLAIN_COMMIT = Struct(">BBqqq")

_BLOCKS = b"SEcA"


@dataclass(frozen=True, slots=True)
class Committed:
    """The transaction is whole: its parts stand between these two messages."""

    xid: int
    begin: bytes
    commit: bytes


@dataclass(frozen=True, slots=True)
class Aborted:
    """The subtransaction's parts are void, all of them when it is the transaction itself."""

    xid: int
    subtransaction: int


class Blocks:
    """``xid``: of the transaction in whose block the next message stands; null outside of blocks."""

    def __init__(self) -> None:
        self.xid: int | None = None

    def concern(self, messages: Sequence[bytes]) -> bool:
        """Whether any of these messages is inside a block, or about one."""
        letters = kinds(messages)
        return self.xid is not None or any(letter in letters for letter in _BLOCKS)

    def take(self, message: bytes) -> bytes | Committed | Aborted | None:
        """What a message amounts to: itself outside of blocks, null where one begins or ends. Raises DecodeError.

        Inside a block only for what ``pack`` has left.
        """
        match message[:1]:
            case b"S":
                check_end(message, _START.size)
                _, self.xid, _ = _START.unpack(message)
            case b"E":
                check_end(message, _STOP.size)
                self.xid = None
            case b"c":
                check_end(message, _COMMIT.size)
                _, xid, flags, lsn, end_lsn, time = _COMMIT.unpack(message)
                begin = _BEGIN.pack(ord("B"), lsn, time, xid)
                return Committed(xid, begin, _PLAIN_COMMIT.pack(ord("C"), flags, lsn, end_lsn, time))
            case b"A":
                check_end(message, _ABORT.size)
                _, xid, subtransaction = _ABORT.unpack(message)
                return Aborted(xid, subtransaction)
            case _ if self.xid is None:
                return message
            case _:
                raise DecodeError("a message ends within its transaction's number", position=len(message))
        return None
