"""Hashes that stand for keys, or for whole rows: 128 bits, made of typed values, so that a file's rows have the same.

They are seeded per index: nobody can choose keys that collide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from catchment.changes.cast import Typed
from catchment.changes.columns import Truths, lengths

Words = npt.NDArray[np.uint64]
Hashes = npt.NDArray[np.uint64]
"""Two columns."""

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_NULL, _EXACT = np.uint64(0x5851F42D4C957F2D), np.uint64(0x14057B7EF767814F)


def hashes(columns: Sequence[Typed], seed: tuple[int, int]) -> Hashes:
    """One hash of each row. Null equals null, but nothing else."""
    result = np.empty((len(columns[0].values), 2), dtype=np.uint64)
    for lane, start in enumerate(seed):
        state = np.full(len(result), start, dtype=np.uint64)
        for column in columns:
            state = _mix(state * _STEP + _column(column, np.uint64(start)))
        result[:, lane] = state
    return result


def _column(column: Typed, seed: np.uint64) -> Words:
    words = _values(column.values, seed)
    if column.exact is not None:
        held = np.asarray(column.exact.is_null())
        words = np.where(held, words, _mix(_values(column.exact, seed) ^ _EXACT))
    return words


def _values(values: pa.Array[Any], seed: np.uint64) -> Words:
    type_ = values.type
    if pa.types.is_list(type_):
        words = _lists(values, seed)
    elif pa.types.is_integer(type_) or pa.types.is_temporal(type_) or pa.types.is_boolean(type_):
        words = _mix(_integers(values) ^ seed)
    else:
        texts = values if pa.types.is_string(type_) or pa.types.is_binary(type_) else values.cast(pa.string())
        words = _texts(texts, seed)
    null: Truths = np.asarray(values.is_null())
    return np.where(null, _mix(np.full(len(words), _NULL ^ seed)), words) if null.any() else words


def _integers(values: pa.Array[Any]) -> Words:
    whole = values.cast(pa.int32()) if pa.types.is_date32(values.type) else values
    numbers = whole.cast(pa.int64()).fill_null(0)
    return np.asarray(numbers, dtype=np.int64).view(np.uint64)


def _texts(texts: pa.Array[Any], seed: np.uint64) -> Words:
    """Eight bytes of all texts at a time; the last ones of a text with zeros behind them."""
    sizes = lengths(texts)
    buffers: Any = texts.buffers()
    offsets = np.frombuffer(buffers[1] or bytes(8), dtype=np.int32)[texts.offset :][: len(texts)]
    content = bytes(buffers[2] or b"") + bytes(8)
    at_any_byte: Words = np.ndarray((len(content) - 7,), "<u8", content, strides=(1,))
    state = _mix(sizes.astype(np.uint64) ^ seed)
    active = np.flatnonzero(sizes)
    place = offsets.astype(np.int64)[active]
    left = sizes[active]
    while len(active):
        word = at_any_byte[place]
        short = left < 8
        word[short] &= (np.uint64(1) << (left[short].astype(np.uint64) * np.uint64(8))) - np.uint64(1)
        state[active] = _mix(state[active] * _STEP + word)
        more = left > 8
        active, place, left = active[more], place[more] + 8, left[more] - 8
    return state


def _lists(lists: Any, seed: np.uint64) -> Words:
    flat = _values(lists.flatten(), seed)
    sizes = np.asarray(pc.list_value_length(lists).fill_null(0), dtype=np.int64)
    ends = np.cumsum(sizes)
    position = np.arange(len(flat)) - np.repeat(ends - sizes, sizes)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(_mix(flat + position.astype(np.uint64) * _STEP))])
    return _mix((sums[ends] - sums[ends - sizes]) ^ _mix(sizes.astype(np.uint64) ^ seed))


def _mix(words: Words) -> Words:
    """Every bit of the result depends on every bit of the word: https://doi.org/10.1145/2660193.2660195"""
    words = words + _STEP
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))
