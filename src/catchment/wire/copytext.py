"""PostgreSQL's COPY text format from and to Arrow string columns.

https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from catchment.model.errors import NOT_UTF8, DecodeError

_TAB, _NEWLINE, _BACKSLASH, _NULL = b"\t\n\\N"

_MEANS = np.arange(256, dtype=np.uint8)
_MEANS[list(b"bfnrtv")] = list(b"\b\f\n\r\t\v")

_CODE = re.compile(rb"[0-7]{1,3}|x[0-9A-Fa-f]{1,2}")
_HEXADECIMAL = ord("x")
_MAY_BE_CODE = np.zeros(256, bool)
_MAY_BE_CODE[list(b"01234567x")] = True

_MOST_PLAIN = 1 << 29  # bytes: plain strings hold 2 GB, and escapes can double them

_ESCAPES = (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))


def parse(data: bytes | memoryview, columns: int) -> list[pa.Array[Any]]:
    """The columns, as strings, of whole rows as ``COPY … TO STDOUT`` sends them; every row ends with a newline.

    ``data`` is less than 2 GB. Rows without columns are empty lines, and no columns are returned. Raises DecodeError
    for a row with another number of columns, a last row without its end, and what is not valid UTF-8.
    """
    data = bytes(data)
    content = np.frombuffer(data, np.uint8)
    escapes = _escapes(content) if b"\\" in data else np.empty(0, np.int64)
    ends = _value_ends(content, escapes, columns)
    starts = np.concatenate(([0], ends + 1))[:-1]
    null = np.zeros(len(ends), bool)
    removed = np.empty(0, np.int64)
    if len(escapes):
        value = np.searchsorted(ends, escapes)
        means_null = (content[escapes + 1] == _NULL) & (ends - starts == 2)[value]
        null[value[means_null]] = True
        escapes = escapes[~means_null]
    if len(escapes):
        content, removed = _unescape(content, escapes, data)
        starts = starts - np.searchsorted(removed, starts)
        ends = ends - np.searchsorted(removed, ends)
    try:
        return _columns(content, starts, ends, null, columns)
    except pa.ArrowInvalid:
        kept = np.delete(np.arange(len(data)), removed)
        position = int(kept[_first_invalid(content)])
        raise DecodeError("a value is not valid UTF-8", position=position, remedy=NOT_UTF8) from None


def render(columns: Sequence[pa.Array[Any]]) -> memoryview:
    """The rows of these string columns of equal length, as ``COPY … FROM STDIN`` reads them."""
    if not columns:
        return memoryview(b"")
    if sum(column.nbytes for column in columns) > _MOST_PLAIN:
        columns = [column.cast(pa.large_string()) for column in columns]
    # Without its type Arrow would look for the one that fits a scalar, which takes longer than to join a few rows.
    nothing, tab, newline = (pa.scalar(text, columns[0].type) for text in ("", "\t", "\n"))
    *others, last = map(_escape, columns)
    return _content(_join(*others, _join(last, nothing, newline), tab))


def _join(*parts: Any) -> pa.Array[Any]:
    joined: pa.Array[Any] = pc.binary_join_element_wise(*parts, null_handling="replace", null_replacement="\\N")
    return joined


def _escape(column: pa.Array[Any]) -> pa.Array[Any]:
    # A search in plain bytes costs a hundredth of a kernel that looks at value after value.
    content = bytes(_content(column))
    for plain, escaped in _ESCAPES:
        if plain.encode() in content:
            column = pc.replace_substring(column, plain, escaped)
    return column


def _content(strings: pa.Array[Any]) -> memoryview:
    """The bytes of strings, or of large strings, one after the other, not copied."""
    _, offsets, content = strings.buffers()
    if content is None or offsets is None or not len(strings):
        return memoryview(b"")
    ends = memoryview(offsets).cast("B").cast("i" if strings.type == pa.string() else "q")
    first, end = ends[strings.offset], ends[strings.offset + len(strings)]
    return memoryview(content).cast("B")[first:end]


def _escapes(content: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Where the backslashes are that escape what follows: every second one of a run."""
    backslashes = np.flatnonzero(content == _BACKSLASH)
    begins_run = np.diff(backslashes, prepend=-2) != 1
    numbers = np.arange(len(backslashes))
    within_run = numbers - np.maximum.accumulate(np.where(begins_run, numbers, 0))
    escapes: npt.NDArray[np.int64] = backslashes[within_run % 2 == 0]
    return escapes


def _value_ends(content: npt.NDArray[np.uint8], escapes: npt.NDArray[np.int64], columns: int) -> npt.NDArray[np.int64]:
    """Where the tabs and newlines are that end a value."""
    separates = (content == _TAB) | (content == _NEWLINE)
    separates[escapes[escapes < len(content) - 1] + 1] = False
    ends = np.flatnonzero(separates)
    if len(content) and (not len(ends) or ends[-1] != len(content) - 1 or content[-1] != _NEWLINE):
        raise DecodeError("the last row has no end", position=len(content))
    ends_row = content[ends] == _NEWLINE
    if columns:
        wrong = ends_row != (np.arange(len(ends)) % columns == columns - 1)
    else:
        wrong = np.diff(ends, prepend=-1) != 1
        wrong |= ~ends_row
    if wrong.any():
        raise DecodeError(f"a row has not the {columns} columns it should have", position=int(ends[wrong.argmax()]))
    return ends


def _unescape(
    content: npt.NDArray[np.uint8], escapes: npt.NDArray[np.int64], data: bytes
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """What is meant by the content, and where the bytes were that are no longer in it."""
    content = content.copy()
    escaped = content[escapes + 1]
    content[escapes + 1] = _MEANS[escaped]
    keep = np.ones(len(content), bool)
    keep[escapes] = False
    # PostgreSQL reads codes but never writes them.
    for position in (escapes[_MAY_BE_CODE[escaped]] + 1).tolist():
        code = _CODE.match(data, position)
        if code is not None:
            text = code.group()
            value = int(text[1:], 16) if text[0] == _HEXADECIMAL else int(text, 8)
            content[position] = value & 0xFF
            keep[position + 1 : code.end()] = False
    return content[keep], np.flatnonzero(~keep)


def _columns(
    content: npt.NDArray[np.uint8],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    null: npt.NDArray[np.bool_],
    columns: int,
) -> list[pa.Array[Any]]:
    # One array over all of the content without a copy: every other element is a value, those between are separators.
    offsets = np.column_stack((starts, ends)).ravel()
    buffers = [None, pa.array(offsets).buffers()[1], pa.array(content).buffers()[1]]
    pieces = pa.Array.from_buffers(pa.large_binary(), max(len(offsets) - 1, 0), buffers)
    places = np.arange(0, len(offsets), 2)
    result = []
    for number in range(columns):
        mine = pa.array(places[number::columns], pa.int64(), mask=null[number::columns])
        result.append(pieces.take(mine).cast(pa.string()))
    return result


def _first_invalid(content: npt.NDArray[np.uint8]) -> int:
    try:
        content.tobytes().decode()
    except UnicodeDecodeError as error:
        return error.start
    raise AssertionError("Arrow and Python disagree about UTF-8")
