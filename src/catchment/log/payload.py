"""The stored form of a batch.

::

    uint16  format version        little-endian, like everything here
    uint32  CRC-32 of all that follows, begun with the format
    uint64  length of the body
    uint64  length of the packed rows; format 2 did not know them
    body, compressed as one LZ4 frame:
        uint32  length of the header
        header  JSON: the batch's fields, its events, and the lengths of what follows
        shapes  JSON: each table's shape once; header, events and rows point to it by position
        (zeros up to a multiple of 8)
        rows    one Arrow record batch message each, without its schema: names and types follow from the shape
    packed rows, as a backfill held them: such a message too, compressed by itself, of the table's columns alone

The body is compressed as a whole, since a record batch of one row is mostly the zeros of its own metadata.
https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode
from datetime import datetime
from functools import lru_cache, reduce
from typing import Any
from zlib import crc32

import pyarrow as pa

from catchment.changes.backfilled import unpacked
from catchment.model.batch import (
    Batch,
    Event,
    Message,
    PackedRows,
    Place,
    RefillFinished,
    RefillStarted,
    SchemaChanged,
    TableRows,
    Truncated,
    rows_schema,
)
from catchment.model.errors import LogCorrupt
from catchment.model.lsn import Lsn
from catchment.model.table import Table

FORMAT = 3
_CHECKSUM_BEGINS = {2: 0, FORMAT: FORMAT}
"""For each format that is read; format 2 did not check its own number."""

_VERSION = struct.Struct("<H")
_CHECKSUM = struct.Struct("<I")
_LENGTHS = {2: struct.Struct("<Q"), FORMAT: struct.Struct("<QQ")}
_HEADER_LENGTH = struct.Struct("<I")
_CHECKED = _VERSION.size + _CHECKSUM.size
_ALIGNMENT = 8
_SHAPES_KEPT = 4096
_CODEC = pa.Codec("lz4")

Json = dict[str, Any]


def encode(batch: Batch) -> bytes:
    """The stored form of ``batch``; ``decode`` gives an equal one back, packed rows laid out as the others."""
    shapes: dict[Table, int] = {}
    messages = [rows.data.serialize() for rows in batch.rows]
    header: Json = {
        "source": batch.source,
        "after": int(batch.after),
        "until": int(batch.until),
        "part": batch.part,
        "ends_transaction": batch.ends_transaction,
        "committed_at": batch.committed_at.isoformat(),
        "events": [_event_to_json(event, shapes) for event in batch.events],
        "rows": [
            [_position(rows.table, shapes), rows.refill, message.size]
            for rows, message in zip(batch.rows, messages, strict=True)
        ],
    }
    message: bytes | pa.Buffer = b""
    if (packed := batch.packed) is not None:
        message = packed.message
        place = _place_to_json(packed.first)
        header["packed"] = [_position(packed.table, shapes), packed.refill, packed.count, place]
    shape_texts = [_shape_text(table) for table in shapes]
    header["shapes"] = [len(text) for text in shape_texts]
    header_text = json.dumps(header, separators=(",", ":")).encode()
    sections = [_HEADER_LENGTH.pack(len(header_text)), header_text, *shape_texts]
    padding = bytes(-sum(map(len, sections)) % _ALIGNMENT)
    body = b"".join([*sections, padding, *messages])
    lengths = _LENGTHS[FORMAT].pack(len(body), len(message))
    checked = [lengths, _CODEC.compress(body, asbytes=True), message]
    checksum = reduce(lambda before, part: crc32(part, before), checked, _CHECKSUM_BEGINS[FORMAT])
    return b"".join([_VERSION.pack(FORMAT), _CHECKSUM.pack(checksum), *checked])


def decode(data: bytes) -> Batch:
    """The batch that ``encode`` was given, packed rows behind the others.

    Raises LogCorrupt for bytes that it did not make, or another version's.
    """
    if len(data) < _CHECKED:
        raise LogCorrupt(f"a batch of {len(data)} bytes is cut off")
    (version,) = _VERSION.unpack_from(data)
    if version not in _CHECKSUM_BEGINS:
        raise LogCorrupt(
            f"a batch is stored in format {version}, this program reads format {FORMAT}",
            remedy="use the version of Catchment that wrote it, or a later one",
        )
    (checksum,) = _CHECKSUM.unpack_from(data, _VERSION.size)
    if crc32(memoryview(data)[_CHECKED:], _CHECKSUM_BEGINS[version]) != checksum:
        raise LogCorrupt("a batch's checksum is wrong")
    body_length, *packed_length = _LENGTHS[version].unpack_from(data, _CHECKED)
    end = len(data) - sum(packed_length)
    body = _CODEC.decompress(memoryview(data)[_CHECKED + _LENGTHS[version].size : end], body_length)
    return _decode_body(body, data[end:])


def _decode_body(body: pa.Buffer, message: bytes) -> Batch:
    (header_length,) = _HEADER_LENGTH.unpack_from(body)
    at = _HEADER_LENGTH.size + header_length
    header = json.loads(body[_HEADER_LENGTH.size : at].to_pybytes())
    shapes = []
    for length in header["shapes"]:
        shapes.append(_shape(body[at : at + length].to_pybytes()))
        at += length
    tables = [table for table, _ in shapes]
    at += -at % _ALIGNMENT
    rows = []
    for position, refill, length in header["rows"]:
        table, schema = shapes[position]
        rows.append(TableRows(table, pa.ipc.read_record_batch(body[at : at + length], schema), refill))
        at += length
    if (packed := header.get("packed")) is not None:
        position, refill, count, first = packed
        rows.append(unpacked(PackedRows(tables[position], pa.py_buffer(message), count, _place(first), refill)))
    return Batch(
        source=header["source"],
        after=Lsn(header["after"]),
        until=Lsn(header["until"]),
        part=header["part"],
        ends_transaction=header["ends_transaction"],
        committed_at=datetime.fromisoformat(header["committed_at"]),
        events=tuple(_event_from_json(event, tables) for event in header["events"]),
        rows=tuple(rows),
    )


def _position(table: Table, shapes: dict[Table, int]) -> int:
    return shapes.setdefault(table, len(shapes))


@lru_cache(_SHAPES_KEPT)
def _shape_text(table: Table) -> bytes:
    return json.dumps(table.to_json(), separators=(",", ":")).encode()


@lru_cache(_SHAPES_KEPT)
def _shape(text: bytes) -> tuple[Table, pa.Schema]:
    table = Table.from_json(json.loads(text))
    return table, rows_schema(column.name for column in table.columns)


def _event_to_json(event: Event, shapes: dict[Table, int]) -> Json:
    match event:
        case SchemaChanged(table, before):
            was = None if before is None else _position(before, shapes)
            return {"event": "schema_changed", "table": _position(table, shapes), "before": was}
        case Truncated(tables, place):
            return {
                "event": "truncated",
                "tables": [_position(table, shapes) for table in tables],
                "place": _place_to_json(place),
            }
        case RefillStarted(refill, tables, targets):
            return {
                "event": "refill_started",
                "refill": refill,
                "tables": [_position(table, shapes) for table in tables],
                "targets": targets,
            }
        case RefillFinished(refill):
            return {"event": "refill_finished", "refill": refill}
        case Message(prefix, content, place):
            return {
                "event": "message",
                "prefix": prefix,
                "content": b64encode(content).decode(),
                "place": _place_to_json(place),
            }


def _event_from_json(value: Json, tables: list[Table]) -> Event:
    match value["event"]:
        case "schema_changed":
            return SchemaChanged(tables[value["table"]], None if (was := value["before"]) is None else tables[was])
        case "truncated":
            return Truncated(tuple(tables[position] for position in value["tables"]), _place(value["place"]))
        case "refill_started":
            named = tuple(tables[position] for position in value["tables"])
            return RefillStarted(value["refill"], named, tuple(value["targets"]))
        case "refill_finished":
            return RefillFinished(value["refill"])
        case "message":
            return Message(value["prefix"], b64decode(value["content"]), _place(value["place"]))
        case unknown:
            raise LogCorrupt(f"a batch holds an event of unknown kind {unknown!r}")


def _place_to_json(place: Place) -> list[int | str]:
    return [place.seq, int(place.lsn), place.xid, place.committed_at.isoformat()]


def _place(value: list[Any]) -> Place:
    seq, lsn, xid, committed_at = value
    return Place(seq, Lsn(lsn), xid, datetime.fromisoformat(committed_at))
