"""PostgreSQL's text of one-dimensional arrays, taken apart as whole columns.

https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from catchment.changes.columns import Truths, lengths, letters

_QUOTE, _COMMA, _BACKSLASH = b'",\\'
_NULL = tuple(b"NULL")
_ONE_DIMENSION = r"^\{([^{]|$)"


def elements(texts: pa.Array[Any]) -> tuple[pa.Array[Any], Truths]:
    """The values as lists of texts, and which of them are not one-dimensional with the usual bounds: null in the lists.

    The elements' delimiter is a comma, as that of all types but ``box`` is.
    """
    match: Any = pc.match_substring_regex
    plain = match(texts, _ONE_DIMENSION).fill_null(False)
    flat: npt.NDArray[np.bool_] = np.asarray(plain)
    arrays = texts.filter(plain)
    content = letters(arrays)
    sizes = lengths(arrays)
    ends = np.cumsum(sizes) - 1  # of the closing braces
    begins = ends - sizes + 1

    escapes = _escapes(content)
    escaped = np.zeros(len(content), dtype=np.bool_)
    escaped[1:] = escapes[:-1]
    quotes = (content == _QUOTE) & ~escaped
    quoted = np.cumsum(quotes) & 1 == 1
    commas = (content == _COMMA) & ~quoted
    told = ~(escapes | quotes | commas)
    told[begins] = told[ends] = False

    filled = sizes > 2
    at_commas = np.flatnonzero(commas)
    firsts = np.sort(np.concatenate([begins[filled], at_commas])) + 1
    lasts = np.sort(np.concatenate([ends[filled], at_commas]))
    count = np.concatenate([[0], np.cumsum(told)])
    offsets = np.append(count[firsts], count[-1]).astype(np.int32)
    values = _strings(content[told], offsets, _nulls(content, firsts, lasts))

    per_array = np.zeros(len(texts), dtype=np.int64)
    per_array[flat] = np.searchsorted(firsts, ends + 1) - np.searchsorted(firsts, begins)
    lists: Any = pa.ListArray
    bounds = np.concatenate([[0], np.cumsum(per_array)]).astype(np.int32)
    taken: pa.Array[Any] = lists.from_arrays(bounds, values, mask=pa.array(~flat))
    return taken, ~flat & np.asarray(texts.is_valid())


def _escapes(content: npt.NDArray[np.uint8]) -> Truths:
    """Backslashes that make the next byte an ordinary one: every other one of a run."""
    backslash = np.asarray(content == _BACKSLASH)
    if not backslash.any():
        return backslash
    place = np.arange(len(content))
    begins = backslash.copy()
    begins[1:] &= ~backslash[:-1]
    run = np.maximum.accumulate(np.where(begins, place, 0))
    return np.asarray(backslash & ((place - run) % 2 == 0))


def _nulls(content: npt.NDArray[np.uint8], firsts: npt.NDArray[np.int64], lasts: npt.NDArray[np.int64]) -> Truths:
    """Which elements are an unquoted NULL; a text that reads so is quoted."""
    null = np.asarray(lasts - firsts == len(_NULL))
    candidates = firsts[null]
    equal = np.ones(len(candidates), dtype=np.bool_)
    for place, letter in enumerate(_NULL):
        equal &= content[candidates + place] == letter
    null[null] = equal
    return null


def _strings(content: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32], null: Truths) -> pa.Array[Any]:
    of: Any = pa.StringArray
    bits = pa.py_buffer(np.packbits(~null, bitorder="little").tobytes()) if null.any() else None
    buffers = (len(null), pa.py_buffer(offsets.tobytes()), pa.py_buffer(content.tobytes()), bits)
    strings: pa.Array[Any] = of.from_buffers(*buffers)
    return strings
