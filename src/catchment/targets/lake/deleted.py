"""Deletion vectors: which rows of a data file are no longer in the table.

As bits, one a row, lowest first, they are marked; as a ``RoaringBitmapArray`` they are stored.
https://github.com/delta-io/delta/blob/master/PROTOCOL.md#deletion-vector-format
https://github.com/RoaringBitmap/RoaringFormatSpec
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import numpy.typing as npt

from catchment.model.errors import TargetRefused

Bits = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

_MAGIC = 1681511377
_COOKIE, _COOKIE_WITH_RUNS = 12346, 12347
_BLOCK = 1 << 16
_BLOCK_BYTES = _BLOCK // 8
_MOST_LISTED = 4096
_RUNS_NEED_OFFSETS = 4
_VERSION = b"\1"

# The alphabets of RFC 1924, which Python writes, and of Z85, which Delta wants: https://rfc.zeromq.org/spec/32/
_RFC_1924 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
_Z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
_TO_Z85 = bytes.maketrans(_RFC_1924, _Z85)
_FROM_Z85 = bytes.maketrans(_Z85, _RFC_1924)


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a vector is kept, as a file action names it. ``offset`` is null when it stands in the action itself."""

    kind: str
    place: str
    offset: int | None
    size: int
    rows: int

    @property
    def path(self) -> str:
        """The file, relative to the table. Raises TargetRefused for a place that Catchment does not use."""
        if self.kind != "u":
            raise TargetRefused(f"a deletion vector is stored in a way ({self.kind}) that Catchment does not write")
        prefix, encoded = self.place[:-20], self.place[-20:]
        identity = UUID(bytes=base64.b85decode(encoded.encode().translate(_FROM_Z85)))
        return f"{prefix}/{_name(identity)}" if prefix else _name(identity)


def none(rows: int) -> Bits:
    """No row of so many is deleted."""
    return np.zeros((rows + 7) // 8, dtype=np.uint8)


def mark(bits: Bits, rows: Rows) -> Bits:
    """The same, with these rows deleted too."""
    marked = bits.copy()
    np.bitwise_or.at(marked, rows >> 3, (1 << (rows & 7)).astype(np.uint8))
    return marked


def marked(bits: Bits, rows: Rows) -> npt.NDArray[np.bool_]:
    """Which of these rows are deleted."""
    found: npt.NDArray[np.bool_] = (bits[rows >> 3] >> (rows & 7).astype(np.uint8)) & 1 == 1
    return found


def count(bits: Bits) -> int:
    """How many rows are deleted."""
    return int(np.bitwise_count(bits).sum(dtype=np.int64))


def kept(bits: Bits, rows: int) -> npt.NDArray[np.bool_]:
    """One truth for each of all rows: whether it is still in the table."""
    return np.asarray(np.unpackbits(bits, count=rows, bitorder="little") == 0)


def file_of(vectors: Mapping[str, Bits], identity: UUID) -> tuple[str, bytes, dict[str, Stored]]:
    """One file, by its path, with all these vectors, and where in it each of them is."""
    parts = [_VERSION]
    end = len(_VERSION)
    stored = {}
    place = base64.b85encode(identity.bytes).translate(_TO_Z85).decode()
    for name, bits in vectors.items():
        data = to_bytes(bits)
        parts += [struct.pack(">I", len(data)), data, struct.pack(">I", zlib.crc32(data))]
        stored[name] = Stored("u", place, end, len(data), count(bits))
        end += len(data) + 8
    return _name(identity), b"".join(parts), stored


def read(content: bytes, stored: Stored, rows: int) -> Bits:
    """One vector of a file, for a data file of so many rows. Raises TargetRefused when it does not read back."""
    begin = (stored.offset or 0) + 4
    data = content[begin : begin + stored.size]
    checksum = content[begin + stored.size : begin + stored.size + 4]
    if len(data) != stored.size or checksum != struct.pack(">I", zlib.crc32(data)):
        raise TargetRefused("a deletion vector does not read back as it was written")
    return from_bytes(data, rows)


def to_bytes(bits: Bits) -> bytes:
    """The vector as Delta stores it. Blocks of 64k rows are lists of positions, or bits when those are fewer bytes."""
    blocks = -(-len(bits) // _BLOCK_BYTES)
    padded = np.zeros(blocks * _BLOCK_BYTES, dtype=np.uint8)
    padded[: len(bits)] = bits
    counts = np.bitwise_count(padded).reshape(blocks, _BLOCK_BYTES).sum(axis=1, dtype=np.int64)
    keys = np.flatnonzero(counts)
    header = struct.pack("<II", _COOKIE, len(keys))
    described = np.stack([keys, counts[keys] - 1], axis=1).astype("<u2").tobytes()
    containers = []
    for key in keys.tolist():
        block = padded[key * _BLOCK_BYTES : (key + 1) * _BLOCK_BYTES]
        if counts[key] > _MOST_LISTED:
            containers.append(block.tobytes())
        else:
            containers.append(np.flatnonzero(np.unpackbits(block, bitorder="little")).astype("<u2").tobytes())
    begins = len(header) + len(described) + 4 * len(keys)
    sizes = np.array([len(container) for container in containers], dtype=np.int64)
    offsets = (begins + np.cumsum(sizes) - sizes).astype("<u4").tobytes()
    bitmap = b"".join([header, described, offsets, *containers])
    return struct.pack("<IQ", _MAGIC, 1) + struct.pack("<I", 0) + bitmap


def from_bytes(data: bytes, rows: int) -> Bits:
    """The bits of a stored vector, for a data file of so many rows. Raises TargetRefused for what it cannot be."""
    magic, buckets = struct.unpack_from("<IQ", data)
    if magic != _MAGIC or buckets > 1:
        raise TargetRefused("a deletion vector is of a format that Catchment does not know")
    blocks = -(-rows // _BLOCK) or 1
    bits = np.zeros(blocks * _BLOCK_BYTES, dtype=np.uint8)
    if buckets:
        _fill(bits, data, 16)
    return bits[: (rows + 7) // 8]


def _fill(bits: Bits, data: bytes, at: int) -> None:
    (cookie,) = struct.unpack_from("<I", data, at)
    at += 4
    if cookie == _COOKIE:
        (containers,) = struct.unpack_from("<I", data, at)
        at += 4
        in_runs = np.zeros(containers, dtype=np.uint8)
    else:
        containers = (cookie >> 16) + 1
        length = (containers + 7) // 8
        flags = np.frombuffer(data, np.uint8, length, at)
        in_runs = np.unpackbits(flags, count=containers, bitorder="little")
        at += length
    described = np.frombuffer(data, "<u2", 2 * containers, at).astype(np.int64).reshape(containers, 2)
    at += 4 * containers
    if cookie == _COOKIE or containers >= _RUNS_NEED_OFFSETS:
        at += 4 * containers
    for (key, less_one), runs in zip(described.tolist(), in_runs.tolist(), strict=True):
        block = bits[key * _BLOCK_BYTES : (key + 1) * _BLOCK_BYTES]
        if runs:
            (number,) = struct.unpack_from("<H", data, at)
            spans = np.frombuffer(data, "<u2", 2 * number, at + 2).astype(np.int64).reshape(number, 2)
            listed = np.concatenate([np.arange(first, first + length + 1) for first, length in spans.tolist()])
            at += 2 + 4 * number
        elif less_one + 1 > _MOST_LISTED:
            block |= np.frombuffer(data, np.uint8, _BLOCK_BYTES, at)
            at += _BLOCK_BYTES
            continue
        else:
            listed = np.frombuffer(data, "<u2", less_one + 1, at).astype(np.int64)
            at += 2 * (less_one + 1)
        np.bitwise_or.at(block, listed >> 3, (1 << (listed & 7)).astype(np.uint8))


def _name(identity: UUID) -> str:
    return f"deletion_vector_{identity}.bin"
