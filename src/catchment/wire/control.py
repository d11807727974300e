"""Reads those messages of pgoutput that are not rows.

https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
Every function takes one whole message and raises DecodeError for bytes that are not such a message, left over
bytes included.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Any, NamedTuple, NoReturn

from catchment.model.errors import DecodeError
from catchment.model.lsn import Lsn
from catchment.model.table import ReplicaIdentity
from catchment.wire.messages import Relation, RelationColumn

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""PostgreSQL counts its timestamps from here, in microseconds."""

_MICROSECOND = timedelta(microseconds=1)
FIRST_TIME = (datetime.min.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
LAST_TIME = (datetime.max.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND

_BEGIN = Struct(">BqqI")
_COMMIT = Struct(">BBqqq")
_TRUNCATE = Struct(">BIB")
_LOGICAL_MESSAGE = Struct(">Bq")
_ORIGIN = Struct(">q")
_OID = Struct(">I")
_RELATION_SHAPE = Struct(">Bh")
_COLUMN_FLAGS = Struct(">B")
_COLUMN_TYPE = Struct(">Ii")
_LENGTH = Struct(">i")

_IN_KEY = 1


class Begin(NamedTuple):
    """``final_lsn`` is where the commit record begins, ``time`` the commit time in microseconds since ``EPOCH``."""

    final_lsn: Lsn
    time: int
    xid: int


def begin(message: bytes) -> Begin:
    check_end(message, _BEGIN.size)
    _, final_lsn, time, xid = _BEGIN.unpack(message)
    if not FIRST_TIME <= time <= LAST_TIME:
        raise DecodeError("the commit time is not within the years 1 to 9999", position=9)
    return Begin(_lsn(final_lsn, position=1), time, xid)


def commit(message: bytes) -> tuple[Lsn, Lsn]:
    """Where the commit record begins and where the transaction ends."""
    check_end(message, _COMMIT.size)
    _, flags, lsn, end_lsn, _ = _COMMIT.unpack(message)
    if flags:
        raise DecodeError(f"a commit has the unknown flags {flags:#04x}", position=1)
    return _lsn(lsn, position=2), _lsn(end_lsn, position=10)


def relation(message: bytes) -> Relation:
    reader = _Reader(message)
    (oid,) = reader.unpack(_OID)
    # PostgreSQL leaves out the name of this one schema.
    schema = reader.text() or "pg_catalog"
    name = reader.text()
    shape_position = reader.position
    identity, count = reader.unpack(_RELATION_SHAPE)
    try:
        replica_identity = ReplicaIdentity(chr(identity))
    except ValueError:
        raise DecodeError(f"unknown replica identity {identity:#04x}", position=shape_position) from None
    if count < 0:
        raise DecodeError("a negative number of columns", position=shape_position + 1)
    columns = []
    for _ in range(count):
        (flags,) = reader.unpack(_COLUMN_FLAGS)
        column = reader.text()
        type_oid, typmod = reader.unpack(_COLUMN_TYPE)
        columns.append(RelationColumn(column, type_oid, typmod, in_key=bool(flags & _IN_KEY)))
    reader.finish()
    return Relation(oid, schema, name, replica_identity, tuple(columns))


def truncate(message: bytes) -> tuple[int, ...]:
    """The oids of the tables."""
    if len(message) < _TRUNCATE.size:
        ends_early(message)
    _, count, _ = _TRUNCATE.unpack_from(message)
    check_end(message, _TRUNCATE.size + count * _OID.size)
    return tuple(oid for (oid,) in _OID.iter_unpack(message[_TRUNCATE.size :]))


def logical_message(message: bytes) -> tuple[bool, Lsn, str, bytes]:
    """Whether it is transactional, its own position, prefix and content."""
    reader = _Reader(message)
    flags, lsn = reader.unpack(_LOGICAL_MESSAGE)
    if flags > 1:
        raise DecodeError(f"a logical message has the unknown flags {flags:#04x}", position=1)
    prefix = reader.text()
    (length,) = reader.unpack(_LENGTH)
    content = reader.bytes(length)
    reader.finish()
    return flags == 1, _lsn(lsn, position=2), prefix, content


def check_origin(message: bytes) -> None:
    reader = _Reader(message)
    reader.unpack(_ORIGIN)
    reader.text()
    reader.finish()


def check_type(message: bytes) -> None:
    reader = _Reader(message)
    reader.unpack(_OID)
    reader.text()
    reader.text()
    reader.finish()


def ends_early(message: bytes) -> NoReturn:
    raise DecodeError("the message ends too early", position=len(message))


def check_end(message: bytes, position: int) -> None:
    """Raises DecodeError unless the message ends at ``position``."""
    if len(message) < position:
        ends_early(message)
    if len(message) > position:
        raise DecodeError("bytes are left over at the end of the message", position=position)


def _lsn(value: int, position: int) -> Lsn:
    if value < 0:
        # Arrow columns and targets hold positions in signed 64 bits; real servers are far from there.
        raise DecodeError("a WAL position beyond 7FFFFFFF/FFFFFFFF", position=position)
    return Lsn(value)


class _Reader:
    """Reads a message from its second byte on, field by field."""

    __slots__ = ("message", "position")

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.position = 1

    def unpack(self, layout: Struct) -> tuple[Any, ...]:
        start = self.position
        self.position += layout.size
        if self.position > len(self.message):
            ends_early(self.message)
        return layout.unpack_from(self.message, start)

    def text(self) -> str:
        """A string ended by a zero byte."""
        start = self.position
        end = self.message.find(b"\0", start)
        if end < 0:
            ends_early(self.message)
        self.position = end + 1
        try:
            return self.message[start:end].decode()
        except UnicodeDecodeError as error:
            raise DecodeError("a name is not valid UTF-8", position=start + error.start) from None

    def bytes(self, length: int) -> bytes:
        start = self.position
        if length < 0:
            raise DecodeError("a negative length", position=start - _LENGTH.size)
        self.position += length
        if self.position > len(self.message):
            ends_early(self.message)
        return self.message[start : self.position]

    def finish(self) -> None:
        check_end(self.message, self.position)
