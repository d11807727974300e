"""Messages of a transaction in progress as records that can be put aside: many at once, one after the other.

A record: the subtransaction that rolling back would take the message away with, the message's length, and the message
as protocol version 1 has it.
https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from struct import Struct

RECORD = Struct(">II")

_XID = Struct(">I")
_BLOCKS = b"SEcA"
_WITHOUT_XID = b"O"


Messages = list[bytes]
"""What messages are gathered in."""


def joined(messages: Messages) -> memoryview:
    """Them all, one behind the other, to be released before more are gathered."""
    return memoryview(b"".join(messages))


def pack(messages: Sequence[bytes], start: int, xid: int) -> tuple[int, bytes]:
    """The messages from ``start`` on that stand inside a block of this transaction, as records.

    Returns also the index of the first one left: it is about a block, or ends within its transaction's number.
    """
    parts: list[bytes] = []
    index = start
    while index < len(messages):
        kind, rest = messages[index][:1], messages[index][1:]
        if kind == _WITHOUT_XID:
            subtransaction = xid
        elif kind in _BLOCKS or len(rest) < _XID.size:
            break
        else:
            (subtransaction,) = _XID.unpack_from(rest)
            rest = rest[_XID.size :]
        parts += [RECORD.pack(subtransaction, 1 + len(rest)), kind, rest]
        index += 1
    return index, b"".join(parts)


def unpack(data: bytes, aborted: Collection[int]) -> tuple[int, Messages]:
    """The messages of the whole records that ``data`` begins with, those rolled back left out, and where these end."""
    messages = Messages()
    end = 0
    while len(data) - end >= RECORD.size:
        subtransaction, length = RECORD.unpack_from(data, end)
        begin = end + RECORD.size
        if len(data) - begin < length:
            break
        end = begin + length
        if subtransaction not in aborted:
            messages.append(data[begin:end])
    return end, messages
