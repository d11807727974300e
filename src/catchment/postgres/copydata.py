"""What a connection in COPY mode has received, many messages at a time.

A message costs psycopg a microsecond, most of it for objects around the bytes; that is as much as everything else that
happens to a change. So where the compiled twin runs, libpq's own functions are called from compiled code.
https://www.postgresql.org/docs/current/libpq-copy.html#LIBPQ-COPY-RECEIVE
"""

from __future__ import annotations

import ctypes
import importlib
import select
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from psycopg import pq, sql

from catchment.wire.choice import NATIVE, chosen

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

    from catchment.postgres._copydata import Libpq

WAL_DATA, WAL_DATA_HEADER = ord("w"), 25
"""What a message of a replication stream begins with, when it is not about the stream itself.

https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-START-REPLICATION
"""

_COPIED_BYTES = 8 * 2**20
_MODULES = {"binary": "psycopg_binary._psycopg", "c": "psycopg_c._psycopg"}


class Taken(NamedTuple):
    """``size``: bytes of the messages taken. ``state``: as PQgetCopyData has it, 0 when no whole message is left now,
    negative when there will be none. ``other``: a message that is none of those asked for, which ended it.
    """

    size: int
    state: int
    other: bytes | None


def take_wal(pgconn: PGconn, messages: list[bytes], most_bytes: int) -> Taken:
    """Append the WAL data that has arrived, without its headers, until about so many bytes have come.

    Raises psycopg's OperationalError.
    """
    return _take(pgconn, messages, most_bytes, WAL_DATA, WAL_DATA_HEADER)


def copied(connection: psycopg.Connection, statement: bytes | sql.Composed) -> Iterator[bytes]:
    """What ``COPY … TO STDOUT`` sends, in whole rows, a few megabytes at a time; never nothing.

    An iteration that is left cancels the COPY. Raises psycopg's errors.
    """
    pgconn = connection.pgconn
    poller = select.poll()
    poller.register(pgconn.socket, select.POLLIN)
    rows: list[bytes] = []
    size = 0
    with connection.cursor().copy(statement):
        while (taken := _take(pgconn, rows, _COPIED_BYTES - size, 0, 0)).state >= 0:
            size += taken.size
            if size >= _COPIED_BYTES:
                yield b"".join(rows)
                rows, size = [], 0
            elif taken.state == 0:
                poller.poll()
                pgconn.consume_input()
        for result in list(iter(pgconn.get_result, None)):
            if result.status != pq.ExecStatus.COMMAND_OK:
                raise psycopg.errors.error_from_result(result)
    if rows:
        yield b"".join(rows)


def _take(pgconn: PGconn, messages: list[bytes], most_bytes: int, kind: int, header: int) -> Taken:
    address = getattr(pgconn, "pgconn_ptr", None)  # not of the class that psycopg's types are about
    if _libpq is None or not address:  # that of a closed connection is null: psycopg says so
        return _take_each(pgconn, messages, most_bytes, kind, header)
    taken = Taken(*_libpq.take(address, messages, most_bytes, kind, header))
    if taken.state < -1:
        raise psycopg.OperationalError(pgconn.get_error_message())
    return taken


def _take_each(pgconn: PGconn, messages: list[bytes], most_bytes: int, kind: int, header: int) -> Taken:
    size = 0
    while size < most_bytes:
        count, data = pgconn.get_copy_data(1)
        if count <= 0:
            return Taken(size, count, None)
        if header and (count < header or data[0] != kind):
            return Taken(size, count, bytes(data))
        messages.append(bytes(data[header:]))
        size += count
    return Taken(size, 1, None)


def _compiled() -> Libpq | None:
    """Null where the reference runs, and where psycopg's own libpq cannot be found: psycopg's Python implementation."""
    if chosen() != NATIVE or pq.__impl__ not in _MODULES:
        return None
    from catchment.postgres._copydata import Libpq

    # Looking a symbol up in a library looks it up in what that was linked with too: this is no other libpq.
    library = ctypes.CDLL(importlib.import_module(_MODULES[pq.__impl__]).__file__)
    get_copy_data, free_memory = (
        ctypes.cast(function, ctypes.c_void_p).value for function in (library.PQgetCopyData, library.PQfreemem)
    )
    return Libpq(get_copy_data or 0, free_memory or 0)


_libpq = _compiled()
