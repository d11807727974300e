"""Typed columns from PostgreSQL's texts: the same value, or null and the text beside it; one cast per column.

Texts are those that PostgreSQL prints under the settings that every connection is given: DateStyle ISO, TimeZone UTC,
bytea_output hex. https://www.postgresql.org/docs/current/datatype.html
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catchment.changes.arrays import elements
from catchment.changes.columns import lengths, letters
from catchment.model.table import Column

TIMESTAMP = pa.timestamp("us", tz="UTC")
MOST_DIGITS = 38

_TYPES: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "oid": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "date": pa.date32(),
    "timestamp": TIMESTAMP,
    "timestamptz": TIMESTAMP,
    "bytea": pa.binary(),
}
_ARRAYS_AS_LISTS = {
    *(f"_{name}" for name in _TYPES),
    *("_numeric", "_text", "_varchar", "_bpchar", "_name", "_uuid", "_json", "_jsonb", "_inet", "_cidr", "_interval"),
    *("_time", "_timetz"),
}
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_HELD_DATE = f"^{_DATE}$"
_HELD_TIMESTAMP = rf"^{_DATE} [0-9:]{{8}}(\.[0-9]{{1,6}})?(\+00)?$"
_TRAILING_ZEROS = r"^(-?[0-9]+)(?:\.0*|(\.[0-9]*[1-9])0*)$"

_HEXADECIMAL = np.zeros(256, dtype=np.uint8)
_HEXADECIMAL[list(b"0123456789abcdef")] = range(16)


@dataclass(frozen=True, slots=True)
class Typed:
    """A column of typed values. ``exact``: the texts of those that the type cannot hold, null elsewhere; or none."""

    values: pa.Array[Any]
    exact: pa.Array[Any] | None = None


def type_of(column: Column) -> pa.DataType:
    """The Arrow type that holds the values of a column: its own where there is one, else strings.

    A ``timestamp`` without time zone is one as if it were UTC. Only PostgreSQL's own types are known by their names.
    """
    if column.type_schema != "pg_catalog" or column.type_extension is not None:
        return pa.string()
    if column.type_name in _ARRAYS_AS_LISTS:
        return pa.list_(_type(column.type_name[1:], column.typmod))
    return _type(column.type_name, column.typmod)


def is_numeric(column: Column) -> bool:
    """Whether its values are numbers of any size, for which a decimal type can be chosen."""
    return (column.type_schema, column.type_name) == ("pg_catalog", "numeric")


def typed(texts: pa.Array[Any], wanted: pa.DataType) -> Typed:
    """A column's texts as values of ``type_of`` the column, of another decimal if it is numeric, or as they are."""
    if isinstance(wanted, pa.ListType):
        return _lists(texts, wanted)
    return _scalars(texts, wanted)


def trimmed(texts: pa.Array[Any]) -> pa.Array[Any]:
    """Texts of numerics without the zeros at the end of their fractions; NaN and the infinities as they are."""
    return pc.replace_substring_regex(texts, _TRAILING_ZEROS, r"\1\2")


def _type(name: str, typmod: int) -> pa.DataType:
    return _decimal(typmod) if name == "numeric" else _TYPES.get(name, pa.string())


def _decimal(typmod: int) -> pa.DataType:
    """As precision and scale are packed: https://www.postgresql.org/docs/current/datatype-numeric.html

    A scale can be negative, which are digits before the point, or larger than the precision.
    """
    if typmod < 0:
        return pa.string()
    packed = typmod - 4
    precision, scale = packed >> 16 & 0xFFFF, ((packed & 0x7FF) ^ 0x400) - 0x400
    precision, scale = max(precision - min(scale, 0), scale), max(scale, 0)
    return pa.decimal128(precision, scale) if precision <= MOST_DIGITS else pa.string()


def _scalars(texts: pa.Array[Any], wanted: pa.DataType) -> Typed:
    if pa.types.is_string(wanted):
        return Typed(texts)
    if pa.types.is_boolean(wanted):
        return Typed(cast("pa.Array[Any]", pc.equal(texts, pa.scalar("t"))))
    if pa.types.is_binary(wanted):
        return Typed(_bytes(texts))
    try:
        return Typed(_parsed(texts, wanted))
    except pa.ArrowInvalid:
        # More digits than a decimal can have, though they are zeros, cannot be parsed.
        plain = trimmed(texts) if isinstance(wanted, pa.Decimal128Type) else texts
        held = _held(plain, wanted)
        nothing = pa.scalar(None, pa.string())
        values = _parsed(cast("pa.Array[Any]", pc.if_else(held, plain, nothing)), wanted)
        return Typed(values, cast("pa.Array[Any]", pc.if_else(held, nothing, texts)))


def _parsed(texts: pa.Array[Any], wanted: pa.DataType) -> pa.Array[Any]:
    if pa.types.is_timestamp(wanted):
        zoned = len(texts) > texts.null_count and bool(pc.any(pc.ends_with(texts, "+00")).as_py())
        return texts.cast(wanted) if zoned else texts.cast(pa.timestamp("us")).cast(wanted)
    return texts.cast(wanted)


def _held(texts: pa.Array[Any], wanted: pa.DataType) -> pa.Array[Any]:
    """Which texts are values of this type: not an infinity, no year before the first or behind the 9999th."""
    if isinstance(wanted, pa.Decimal128Type):
        whole, scale = wanted.precision - wanted.scale, wanted.scale
        before = rf"[0-9]{{1,{whole}}}" if whole else "0"
        pattern = rf"^-?{before}(\.[0-9]{{1,{scale}}})?$" if scale else rf"^-?{before}$"
    elif pa.types.is_timestamp(wanted):
        pattern = _HELD_TIMESTAMP
    elif pa.types.is_date32(wanted):
        pattern = _HELD_DATE
    else:
        pattern = "^$"
    return cast("pa.Array[Any]", pc.match_substring_regex(texts, pattern))


def _bytes(texts: pa.Array[Any]) -> pa.Array[Any]:
    """``\\x`` and two digits a byte."""
    filled = texts.fill_null("")  # bytes may stand behind a null
    digits = lengths(filled)
    content = letters(filled)
    begins = np.cumsum(digits)[digits > 0] - digits[digits > 0]
    of_bytes = np.ones(len(content), dtype=np.bool_)
    of_bytes[begins] = of_bytes[begins + 1] = False
    nibbles = _HEXADECIMAL[content[of_bytes]]
    data = nibbles[0::2] << 4 | nibbles[1::2]
    sizes = np.maximum(digits - 2, 0) // 2
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    valid = np.packbits(np.asarray(texts.is_valid()), bitorder="little").tobytes()
    buffers = [pa.py_buffer(valid), pa.py_buffer(offsets.tobytes()), pa.py_buffer(data.tobytes())]
    of: Any = pa.Array
    values: pa.Array[Any] = of.from_buffers(pa.binary(), len(texts), buffers)
    return values


def _lists(texts: pa.Array[Any], wanted: pa.ListType[Any]) -> Typed:
    taken, other = elements(texts)
    lists: Any = taken
    one = _scalars(lists.values, wanted.value_type)
    bad = other
    if one.exact is not None:
        parents = np.repeat(np.arange(len(lists)), np.diff(np.asarray(lists.offsets)))
        bad = bad.copy()
        bad[parents[np.asarray(one.exact.is_valid())]] = True
    of: Any = pa.ListArray
    null = bad | ~np.asarray(texts.is_valid())
    values: pa.Array[Any] = of.from_arrays(lists.offsets, one.values, type=wanted, mask=pa.array(null))
    exact = pc.if_else(pa.array(bad), texts, pa.scalar(None, pa.string())) if bad.any() else None
    return Typed(values, cast("pa.Array[Any] | None", exact))
