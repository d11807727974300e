"""Hashes of rows: what two places hold can be compared without moving it.

A row's hash is the first 64 bits of the SHA-256 of its values' texts, quoted as PostgreSQL quotes literals, a comma
behind each, in UTF-8. It depends on no server's version, encoding or locale, and unlike MD5 no server refuses it. A
digest adds hashes up modulo 2**64, so that it does not depend on an order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from catchment.changes.columns import Truths

Key = tuple[str, ...]
"""The texts of a key's columns."""

Columns: TypeAlias = "list[pa.Array[Any]]"
"""Rows as columns of text."""

Hashes = npt.NDArray[np.uint64]

BUCKETS = 4096


@dataclass(frozen=True, slots=True)
class Digest:
    """How many rows, and the sum of their hashes modulo 2**64."""

    rows: int
    total: int


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """Digests of all rows, spread over ``BUCKETS`` of them by their hashes: ``rows`` and ``totals`` by number."""

    rows: npt.NDArray[np.int64]
    totals: Hashes

    def differing(self, other: Buckets) -> list[int]:
        """The numbers of those that are not the same."""
        found: list[int] = np.flatnonzero((self.rows != other.rows) | (self.totals != other.totals)).tolist()
        return found

    def changed(self, hashes: Hashes, copies: npt.NDArray[np.int64]) -> Buckets:
        """With so many copies of rows of these hashes more, or less; each in the bucket that its own hash says."""
        rows, totals = self.rows.copy(), self.totals.copy()
        places = (hashes & np.uint64(BUCKETS - 1)).astype(np.int64)
        np.add.at(rows, places, copies)
        np.add.at(totals, places, hashes * copies.astype(np.uint64))
        return Buckets(rows, totals)


def no_buckets() -> Buckets:
    """Of no rows."""
    return Buckets(np.zeros(BUCKETS, np.int64), np.zeros(BUCKETS, np.uint64))


class MetHashes:
    """Hashes of all rows of one place, which are met by those of another: 9 bytes a row."""

    def __init__(self, parts: Iterable[Hashes]) -> None:
        self._hashes = np.concatenate([np.zeros(0, np.uint64), *parts])
        self._hashes.sort()
        self._met = np.zeros(len(self._hashes), dtype=np.bool_)

    def meet(self, others: Hashes) -> Truths:
        """Which of these are here too. One that is here twice is met once."""
        place = np.searchsorted(self._hashes, others)
        place[place == len(self._hashes)] = 0
        found: Truths = self._hashes[place] == others if len(self._hashes) else np.zeros(len(others), np.bool_)
        self._met[place[found]] = True
        return found

    def unmet(self) -> Hashes:
        """Those that were not met, in order."""
        left = self._hashes[~self._met]
        unmet: Hashes = left[np.diff(left, prepend=left[:1] + np.uint64(1)) != 0]
        return unmet


def as_text(hashes: Hashes) -> pa.Array[Any]:
    """As PostgreSQL prints the same bits of a ``bigint``."""
    return pa.array(hashes.view(np.int64)).cast(pa.string())


def from_text(hashes: pa.Array[Any]) -> Hashes:
    """Read what ``as_text`` made, or PostgreSQL."""
    return np.asarray(hashes.cast(pa.int64())).view(np.uint64)


def row_hashes(columns: Sequence[pa.Array[Any]]) -> Hashes:
    """The hash of each row; null is not ''.

    https://www.postgresql.org/docs/current/functions-string.html#FUNCTIONS-STRING-FORMAT
    """
    join: Any = pc.binary_join_element_wise
    texts = join(*map(_quoted, columns), "", ",")
    hashes = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts.to_pylist()]
    return np.array(hashes, dtype=np.uint64)


def _quoted(column: pa.Array[Any]) -> Any:
    """As ``format('%L', …)`` prints it."""
    join: Any = pc.binary_join_element_wise
    inner = pc.replace_substring(pc.replace_substring(column, "\\", "\\\\"), "'", "''")
    opening = pc.if_else(pc.match_substring(column, "\\"), "E'", "'")
    return pc.fill_null(join(opening, inner, "'", ""), "NULL")
