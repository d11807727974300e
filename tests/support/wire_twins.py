"""The twins of ``wire``, and what one tells of a stream or of COPY text, so that two can be compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from catchment.model.errors import DecodeError
from catchment.model.lsn import Lsn
from catchment.wire import copytext, parts, pgoutput
from catchment.wire.choice import NATIVE, PYTHON


@dataclass(frozen=True)
class Twin:
    """One implementation of what ``catchment.wire.twin`` offers."""

    name: str
    Decoder: type[pgoutput.Decoder]
    Messages: type[parts.Messages]
    joined: Callable[[parts.Messages], memoryview]
    kinds: Callable[[Sequence[bytes]], bytes]
    parse: Callable[[bytes, int], list[Any]]
    render: Callable[[Sequence[Any]], memoryview]
    pack: Callable[[Sequence[bytes], int, int], tuple[int, bytes]]
    unpack: Callable[[bytes, Collection[int]], tuple[int, Sequence[bytes]]]


REFERENCE = Twin(
    PYTHON,
    pgoutput.Decoder,
    parts.Messages,
    parts.joined,
    pgoutput.kinds,
    copytext.parse,
    copytext.render,
    parts.pack,
    parts.unpack,
)
NATIVE_IS_BUILT = find_spec("catchment.wire._native") is not None


def compiled() -> Twin:
    """The compiled twin. Raises ImportError where it was not built."""
    from catchment.wire import native

    return Twin(
        NATIVE,
        native.Decoder,
        native.Messages,
        native.joined,
        native.kinds,
        native.parse,
        native.render,
        native.pack,
        native.unpack,
    )


@dataclass(frozen=True)
class Piece:
    """Messages that arrive together, the limits under which they are decoded, and whether ``take`` follows.

    ``gathered``: as they come from a server; else each is bytes of its own.
    """

    messages: Sequence[bytes]
    most_rows: int
    most_bytes: int
    take: bool
    gathered: bool


def told_of_stream(twin: Twin, resume: int, sequence: int, pieces: Iterable[Piece]) -> list[Any]:
    """Everything that can be seen of a decoder on the way, to the end or to the DecodeError that ends it."""
    decoder = twin.Decoder(Lsn(resume), sequence)
    told: list[Any] = []
    try:
        for piece in pieces:
            messages = gathered(twin, piece.messages) if piece.gathered else piece.messages
            index = 0
            while index < len(messages):
                index, event = decoder.decode(messages, index, piece.most_rows, piece.most_bytes)
                told += [index, event, *_state(decoder)]
            if piece.take:
                told += _taken(decoder)
        told += _taken(decoder)
    except DecodeError as error:
        told += [str(error), error.position, error.table, error.remedy]
    return told


def gathered(twin: Twin, messages: Iterable[bytes]) -> parts.Messages:
    """The same messages in what the twin gathers them in."""
    together = twin.Messages()
    for message in messages:
        together.append(message)
    return together


def _state(decoder: pgoutput.Decoder) -> list[Any]:
    return [
        (decoder.sequence, decoder.rows, decoder.size, decoder.in_transaction, list(decoder.xids)),
        (type(decoder.until), decoder.until, decoder.committed_at),
    ]


def _taken(decoder: pgoutput.Decoder) -> list[Any]:
    taken = decoder.take()
    for _, data in taken:
        data.validate(full=True)
    return [*taken, *((data.schema, data.num_rows) for _, data in taken), *_state(decoder)]


def told_of_parts(twin: Twin, messages: Sequence[bytes], xid: int, aborted: Collection[int], cut: int) -> list[Any]:
    """The records that these messages of a block become, and the messages of all of them but the last bytes."""
    told: list[Any] = []
    for start in range(len(messages)):
        left, records = twin.pack(messages, start, xid)
        told += [left, records]
        for data in (records, records[: len(records) - cut]):
            end, unpacked = twin.unpack(data, aborted)
            told += [end, list(unpacked)]
    return told


def told_of_text(twin: Twin, data: bytes, columns: int) -> list[Any]:
    """The columns, and the text that they are rendered to again, or the DecodeError."""
    try:
        parsed = twin.parse(data, columns)
    except DecodeError as error:
        return [str(error), error.position, error.remedy]
    for column in parsed:
        column.validate(full=True)
    return [*parsed, *(column.type for column in parsed), bytes(twin.render(parsed))]
