"""PostgreSQL's texts from typed columns: what ``cast.py`` made typed, printed as PostgreSQL prints it.

Of a ``numeric`` that was given another scale than its own the trailing zeros are not known any more, and left out.
Everything else is the very text. https://www.postgresql.org/docs/current/datatype.html
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from catchment.changes.cast import Typed, trimmed, type_of, typed
from catchment.changes.columns import Rows, lengths, letters
from catchment.model.table import Column

pc: Any = pyarrow.compute  # the stubs do not know all that it takes

_HEXADECIMAL = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
# As array_out quotes: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
_QUOTED = r'^$|^(?i:null)$|[{}",\\ \t\n\r\v\f]'
_EXPONENT_FROM = {pa.float32(): 6, pa.float64(): 15}
_FIXED_OR_NOT = r"^(?P<sign>-?)(?P<whole>[0-9]+)\.?(?P<part>[0-9]*)(?:e(?P<exponent>[-+][0-9]+))?$"


def printed(value: Typed, column: Column) -> pa.Array[Any]:
    """The texts of a column's values, those that its type cannot hold among them."""
    texts = _printed(value.values, column)
    if value.exact is not None:
        texts = _array(pc.coalesce(value.exact, texts))
    return trimmed(texts) if is_trimmed(value.values.type, column) else texts


def as_held(texts: pa.Array[Any], column: Column, wanted: pa.DataType) -> pa.Array[Any]:
    """What ``printed`` would make of PostgreSQL's texts that are held as values of this type."""
    return texts if pa.types.is_string(wanted) else printed(typed(texts, wanted), column)


def is_trimmed(held_as: pa.DataType, column: Column) -> bool:
    """Whether the trailing zeros of a numeric column get lost in values of this type."""
    return isinstance(held_as, pa.Decimal128Type) and held_as != type_of(column)


def _printed(values: pa.Array[Any], column: Column) -> pa.Array[Any]:
    match values.type:
        case pa.ListType():
            return _lists(values, replace(column, type_name=column.type_name[1:]))
        case pa.Decimal128Type():
            return _decimals(values)
        case kind if pa.types.is_boolean(kind):
            return _array(pc.if_else(values, "t", "f"))
        case kind if pa.types.is_floating(kind):
            return _floats(values)
        case kind if pa.types.is_binary(kind):
            return _bytes(values)
        case kind if pa.types.is_timestamp(kind):
            texts = pc.replace_substring_regex(values.cast(pa.timestamp("us")).cast(pa.string()), r"\.?0+$", "")
            return _joined(texts, "+00") if column.type_name == "timestamptz" else _array(texts)
    return values.cast(pa.string())


def _array(computed: Any) -> pa.Array[Any]:
    array: pa.Array[Any] = computed
    return array


def _joined(*parts: Any) -> pa.Array[Any]:
    return _array(pc.binary_join_element_wise(*parts, ""))


def _decimals(values: Any) -> pa.Array[Any]:
    """The digits of the unscaled number, and the point among them."""
    scale = values.type.scale
    whole = pa.decimal128(values.type.precision, 0)
    of: Any = pa.Array
    digits = of.from_buffers(whole, len(values), values.buffers(), offset=values.offset).cast(pa.string())
    if not scale:
        return _array(digits)
    sign = pc.if_else(pc.starts_with(digits, "-"), "-", "")
    padded = pc.utf8_lpad(pc.utf8_ltrim(digits, "-"), scale + 1, "0")
    before: Any = pc.utf8_slice_codeunits(padded, 0, -scale)
    behind: Any = pc.utf8_slice_codeunits(padded, -scale)
    return _joined(sign, before, ".", behind)


def _floats(values: pa.Array[Any]) -> pa.Array[Any]:
    """The shortest digits that read back, which Arrow knows; when there is an exponent is decided otherwise.

    As float8out does, which takes one below 1e-4 and from 1e15 on, float4out from 1e6 on.
    """
    texts: Any = _shortest(values)
    size: Any = pc.abs(values)
    usual = pc.or_(pc.is_null(values), pc.and_(pc.greater_equal(size, 1e-4), pc.less(size, 1e6)))
    odd = pc.invert(pc.fill_null(pc.or_(usual, pc.equal(values, 0.0)), True))
    if not pc.any(odd).as_py():
        return _array(texts)
    others = texts.filter(odd)
    others = pc.replace_substring(pc.replace_substring(others, "inf", "Infinity"), "nan", "NaN")
    return _array(pc.replace_with_mask(texts, odd, _with_exponents(others, _EXPONENT_FROM[values.type])))


def _shortest(values: pa.Array[Any]) -> Any:
    """The shortest digits that read back. PostgreSQL takes none that lie exactly between two floats, as Arrow does."""
    texts: Any = values.cast(pa.string())
    others = {
        row: other
        for row in _suspects(values, texts).tolist()
        if (other := _between(texts[row].as_py(), values[row].as_py(), values.type.to_pandas_dtype())) is not None
    }
    if not others:
        return texts
    mask = np.zeros(len(texts), dtype=np.bool_)
    mask[list(others)] = True
    return pc.replace_with_mask(texts, pa.array(mask), pa.array([others[row] for row in sorted(others)], pa.string()))


def _suspects(values: pa.Array[Any], texts: Any) -> Rows:
    """Only with large numbers few digits are as exact as that; of a float4 a float8 tells."""
    numbers = values.fill_null(0).to_numpy(zero_copy_only=False)
    suspects: Rows = np.flatnonzero(
        np.isfinite(numbers) & (np.abs(numbers) >= 2.0 ** (np.finfo(numbers.dtype).nmant - 2))
    )
    if pa.types.is_float64(values.type):
        return suspects
    given = numbers[suspects].astype(np.float64)
    shown = np.asarray(texts.take(pa.array(suspects)).cast(pa.float64()))
    beyond = np.nextafter(numbers[suspects], np.copysign(np.float32(np.inf), (shown - given).astype(np.float32)))
    between: Rows = suspects[2 * shown == given + beyond]
    return between


def _between(text: str, number: float, kind: Any) -> str | None:
    """What stands for a float whose digits lie between it and the next one; null when they do not."""
    digits, exact = Fraction(text), Fraction(number)
    beyond = np.nextafter(kind(number), kind(math.copysign(math.inf, digits - exact)))
    if digits == exact or 2 * digits != exact + Fraction(float(beyond)):
        return None
    longer = (f"{number:.{places}e}" for places in range(17))
    return next(each for each in longer if kind(each) == number and Fraction(each) != digits)


def _with_exponents(texts: Any, exponent_from: int) -> pa.Array[Any]:
    found = pc.extract_regex(texts, _FIXED_OR_NOT)
    sign, whole, part, exponent = (pc.struct_field(found, name) for name in ("sign", "whole", "part", "exponent"))
    digits = _joined(whole, part)
    significant = pc.utf8_ltrim(digits, "0")
    leading = np.asarray(pc.subtract(pc.binary_length(digits), pc.binary_length(significant)).fill_null(0))
    given = np.asarray(
        pc.if_else(pc.equal(exponent, ""), "0", pc.utf8_ltrim(exponent, "+")).cast(pa.int64()).fill_null(0)
    )
    power = np.asarray(pc.binary_length(whole).fill_null(0)) + given - leading - 1
    significant = pc.utf8_rtrim(significant, "0")
    rest = pc.utf8_slice_codeunits(significant, 1)
    rest = pc.if_else(pc.equal(rest, ""), "", _joined(".", rest))
    size = pc.utf8_lpad(pa.array(np.abs(power)).cast(pa.string()), 2, "0")
    first = pc.utf8_slice_codeunits(significant, 0, 1)
    raised = _joined(sign, first, rest, pc.if_else(pa.array(power < 0), "e-", "e+"), size)
    plain = texts
    for places in np.unique(power[(given > 0) & (power < exponent_from)]).tolist():
        plain = pc.if_else(pa.array(power == places), _fixed(sign, significant, places + 1), plain)
    chosen = pc.if_else(pa.array((power < -4) | (power >= exponent_from)), raised, plain)
    return _array(pc.coalesce(chosen, texts))


def _fixed(sign: Any, significant: Any, places: int) -> pa.Array[Any]:
    """Without an exponent, with so many digits before the point."""
    padded: Any = pc.utf8_rpad(significant, places, "0")
    before, behind = pc.utf8_slice_codeunits(padded, 0, places), pc.utf8_slice_codeunits(padded, places)
    return _joined(sign, before, pc.if_else(pc.equal(behind, ""), "", _joined(".", behind)))


def _bytes(values: pa.Array[Any]) -> pa.Array[Any]:
    filled: Any = values.fill_null(b"")
    content = letters(filled)
    digits = _HEXADECIMAL[np.stack([content >> 4, content & 15], axis=1).ravel()]
    offsets = np.concatenate([[0], np.cumsum(2 * lengths(filled))]).astype(np.int32)
    of: Any = pa.StringArray
    texts = _joined(
        "\\x", of.from_buffers(len(values), pa.py_buffer(offsets.tobytes()), pa.py_buffer(digits.tobytes()))
    )
    return _array(pc.if_else(values.is_valid(), texts, pa.scalar(None, pa.string())))


def _lists(lists: Any, column: Column) -> pa.Array[Any]:
    elements: Any = _printed(lists.flatten(), column)
    escaped = pc.replace_substring(pc.replace_substring(elements, "\\", "\\\\"), '"', '\\"')
    quoted = pc.if_else(pc.match_substring_regex(elements, _QUOTED), _joined('"', escaped, '"'), elements)
    sizes = np.asarray(pc.list_value_length(lists).fill_null(0), dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    of: Any = pa.ListArray
    parts = of.from_arrays(offsets, pc.fill_null(quoted, "NULL"), mask=lists.is_null())
    return _joined("{", pc.binary_join(parts, ","), "}")
