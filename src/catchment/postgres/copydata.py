"""What a connection in COPY mode has received, many messages at a time.

A message costs psycopg a microsecond, most of it for objects around the bytes; that is as much as everything else that
happens to a change. So where the compiled twin runs, libpq's own functions are called from compiled code.
https://www.postgresql.org/docs/current/libpq-copy.html#LIBPQ-COPY-RECEIVE
"""

from __future__ import annotations

import ctypes
import importlib
import select
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from psycopg import pq, sql

from catchment.wire.choice import NATIVE, chosen
from catchment.wire.twin import Messages, joined

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

    from catchment.postgres._copydata import Libpq
    from catchment.postgres.bell import Bell

WAL_DATA, WAL_DATA_HEADER = ord("w"), 25
"""What a message of a replication stream begins with, when it is not about the stream itself.

https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-START-REPLICATION
"""

KEEPALIVE = struct.Struct("!cQqB")
"""``k``, the position that the server has got to, its clock, and whether it wants a reply; the same page."""

ROOM = "SELECT pg_catalog.repeat('x', 65536)"
"""What to ask on a connection first on which much will come.

libpq reads as much at once as its buffer holds: 16 kB, until an answer did not fit. To look for more costs as much as
fifty rows.
"""

_COPIED_BYTES = 8 * 2**20
_NEXT_POSITION_SECONDS = 0.005
_FULL_BYTES = 64 * 2**10  # less than what libpq reads at once: when so much came, there is more

# The server sends change by change, and to look for each costs more than the change: let some pile up, but by far fewer
# than the some 270 that Linux holds for a local socket before the server has to wait.
_PILE_UP_SECONDS = 0.00015
_QUIET_SECONDS = 0.005
_MODULES = {"binary": "psycopg_binary._psycopg", "c": "psycopg_c._psycopg"}


class Taken(NamedTuple):
    """``size``: bytes of the messages taken. ``state``: as PQgetCopyData has it, 0 when no whole message is left now,
    negative when there will be none. ``other``: a message that is none of those asked for, which ended it.
    """

    size: int
    state: int
    other: bytes | None


class _Patience(NamedTuple):
    """For how long to go on, and with nothing coming; ``pause``: before the next look where only little had come."""

    seconds: float
    quiet: float
    pause: float


_FOR_ROWS = _Patience(1.0, 1.0, 0.0)  # which come in larger pieces, and are waited for again and again


def copied(connection: psycopg.Connection, statement: bytes | sql.Composed) -> Iterator[memoryview]:
    """What ``COPY … TO STDOUT`` sends, in whole rows, a few megabytes at a time; never nothing.

    Each piece is there until the next is asked for. An iteration that is left cancels the COPY. Raises psycopg's
    errors.
    """
    pgconn = connection.pgconn
    rows = Messages()
    size = 0
    with connection.cursor().copy(statement):
        while (taken := _take(pgconn, rows, _COPIED_BYTES - size, _FOR_ROWS)).state >= 0:
            size += taken.size
            if size >= _COPIED_BYTES:
                with joined(rows) as piece:
                    yield piece
                rows.clear()
                size = 0
            elif taken.size == 0:
                consume(pgconn)  # TLS may hold what the socket does not show
        for result in list(iter(pgconn.get_result, None)):
            if result.status != pq.ExecStatus.COMMAND_OK:
                raise psycopg.errors.error_from_result(result)
    if rows:
        with joined(rows) as piece:
            yield piece


def consume(pgconn: PGconn) -> None:
    """Take what has arrived off the socket; see ``PGconn.consume_input``. Raises psycopg's OperationalError."""
    address = _address(pgconn)
    if _libpq is None or address is None:
        pgconn.consume_input()
    elif not _libpq.consume(address):
        raise psycopg.OperationalError(pgconn.get_error_message())


def wait_for_wal(
    pgconn: PGconn, messages: Messages, bell: Bell | None, seconds: float, asked: bool
) -> tuple[bytes | None, Taken]:
    """Wait for the next message: for so long at most, and until the bell rings.

    A keepalive that wants no reply does not end it unless ``asked`` for, but is returned, the last of them, before what
    did: a server tells its position to all slots of all its databases, whichever of them is busy. Raises psycopg's
    OperationalError.
    """
    address = _address(pgconn)
    rope = -1 if bell is None else bell.fileno()
    if _libpq is None or address is None:
        position, taken = _wait_each(pgconn, messages, rope, seconds, asked)
    else:
        size, state, other, position = _libpq.wait(
            address,
            messages,
            WAL_DATA,
            WAL_DATA_HEADER,
            KEEPALIVE.size,
            pgconn.socket,
            rope,
            seconds,
            _NEXT_POSITION_SECONDS,
            asked,
        )
        taken = _valid(pgconn, (size, state, other))
    if bell is not None:
        bell.hush()
    return position, taken


def take_wal(pgconn: PGconn, messages: Messages, most_bytes: int, seconds: float = 0.0) -> Taken:
    """Append the WAL data that has arrived, without its headers, until about so many bytes have come.

    With ``seconds`` (else 0 or less) also what arrives within that time, until nothing does for a while. Raises
    psycopg's OperationalError.
    """
    patience = _Patience(seconds, _QUIET_SECONDS, _PILE_UP_SECONDS)
    return _take(pgconn, messages, most_bytes, patience, WAL_DATA, WAL_DATA_HEADER)


def _take(
    pgconn: PGconn, messages: Messages, most_bytes: int, patience: _Patience, kind: int = 0, header: int = 0
) -> Taken:
    """Append messages of a kind, or all, without their headers."""
    address = _address(pgconn)
    if _libpq is None or address is None:
        return _take_while(pgconn, messages, most_bytes, patience, kind, header)
    waiting = (pgconn.socket, _FULL_BYTES, patience.seconds, patience.pause, patience.quiet)
    return _valid(pgconn, _libpq.take(address, messages, most_bytes, kind, header, *waiting))


def _take_each(pgconn: PGconn, messages: Messages, most_bytes: int, kind: int, header: int) -> Taken:
    size = 0
    while size < most_bytes:
        count, data = pgconn.get_copy_data(1)
        if count <= 0:
            return Taken(size, count, None)
        if kind and (count < header or data[0] != kind):
            return Taken(size, count, bytes(data))
        messages.append(bytes(data[header:]))
        size += count
    return Taken(size, 1, None)


def _take_while(
    pgconn: PGconn, messages: Messages, most_bytes: int, patience: _Patience, kind: int, header: int
) -> Taken:
    until = time.monotonic() + patience.seconds
    size = 0
    while True:
        taken = _take_each(pgconn, messages, most_bytes - size, kind, header)
        size += taken.size
        left = until - time.monotonic()
        if taken.state != 0 or left <= 0 or not (taken.size or _poll(min(left, patience.quiet), pgconn.socket)):
            return taken._replace(size=size)
        if 0 < taken.size < _FULL_BYTES:
            time.sleep(patience.pause)
        pgconn.consume_input()


def _wait_each(
    pgconn: PGconn, messages: Messages, rope: int, seconds: float, asked: bool
) -> tuple[bytes | None, Taken]:
    until = time.monotonic() + seconds
    position: bytes | None = None
    while True:
        taken = _take_each(pgconn, messages, 1, WAL_DATA, WAL_DATA_HEADER)
        left = until - time.monotonic()
        if (
            taken.other is not None
            and taken.state == KEEPALIVE.size
            and taken.other[:1] == b"k"
            and not taken.other[-1]
        ):
            position = taken.other
            if asked or left <= 0 or _poll(min(left, _NEXT_POSITION_SECONDS), rope):
                return position, Taken(0, 0, None)
        elif taken.state != 0 or _poll(left, rope, pgconn.socket) != {pgconn.socket}:
            return position, taken
        else:
            pgconn.consume_input()


def _poll(seconds: float, *descriptors: int) -> set[int]:
    """Those that can be read; a negative one never can."""
    poller = select.poll()
    for descriptor in descriptors:
        if descriptor >= 0:
            poller.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poller.poll(max(0.0, seconds) * 1000)}


def _address(pgconn: PGconn) -> int | None:
    """Where the connection is in memory; null where psycopg does not tell, and once it is closed."""
    return getattr(pgconn, "pgconn_ptr", None) or None


def _valid(pgconn: PGconn, taken: tuple[int, int, bytes | None]) -> Taken:
    if taken[1] < -1:
        raise psycopg.OperationalError(pgconn.get_error_message())
    return Taken(*taken)


def _compiled() -> Libpq | None:
    """Null where the reference runs, and where psycopg's own libpq cannot be found: psycopg's Python implementation."""
    if chosen() != NATIVE or pq.__impl__ not in _MODULES:
        return None
    from catchment.postgres._copydata import Libpq

    # Looking a symbol up in a library looks it up in what that was linked with too: this is no other libpq.
    library = ctypes.CDLL(importlib.import_module(_MODULES[pq.__impl__]).__file__)
    functions = (library.PQgetCopyData, library.PQfreemem, library.PQconsumeInput)
    return Libpq(*(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions))


_libpq = _compiled()
