"""The contract of a target: something built from the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pyarrow as pa

from catchment.changes.digest import Buckets, Columns, Digest, Key
from catchment.model.batch import Batch
from catchment.model.frontier import Frontier
from catchment.model.table import Table


@dataclass(frozen=True, slots=True)
class Pace:
    """When a target wants to be served: after ``delay`` seconds or ``bytes`` waiting, whichever is first.

    ``bytes`` also bounds what one ``apply`` is given, except that a transaction is never divided.
    """

    delay: float
    bytes: int


class Target(Protocol):
    """The target itself is the truth about how far it has got: rows and frontier change in one commit."""

    @property
    def name(self) -> str:
        """As in the configuration; refills are addressed by it."""
        ...

    @property
    def pace(self) -> Pace: ...

    @property
    def scope(self) -> Literal["source", "hub"]:
        """``hub``: one loop over all sources."""
        ...

    def frontier(self, source: str) -> Frontier | None:
        """Where the target stands for this source; null when it has never heard of it. Raises TargetError."""
        ...

    def apply(self, source: str, batches: Iterable[tuple[Frontier, Batch]], durable: bool = True) -> None:
        """Take in whole transactions, lazily. Raises TargetError; TargetWentBack where what it had taken in is gone.

        ``durable``: on return, these and all before them. Else a crash of the target may still take them back, together
        with its frontier.

        Batches that the target has already are skipped. A batch that does not follow the target's frontier directly
        means that all it has of this source is out of date until a refill brings it anew: it stays readable as it is.
        """
        ...

    def tend(self, source: str, seconds: float) -> bool:
        """Do some of what can wait, in pieces of a second at most: no more once so much time has passed.

        Whether there may be more of it. Called again and again, whether or not there is something to do. Raises
        TargetError.
        """
        ...

    def out_of_date(self, source: str) -> Mapping[str, str | None]:
        """Tables that wait for a refill though none is under way, by their names in the source. Raises TargetError.

        Each with the sentence of what a person has to do first; null when a refill is all it takes.
        """
        ...

    def forget(self, source: str) -> None:
        """Remove everything built from this source."""
        ...

    def close(self) -> None:
        """Let go of connections and files."""
        ...


class SortedRows(Protocol):
    """Rows that can be had in the order of their keys. Ranges are ``after < key <= until``, null for no limit."""

    @property
    def order(self) -> Sequence[str | None]:
        """What the order of each column of the key depends on; null when that cannot be said."""
        ...

    def digest(self, after: Key | None, until: Key | None) -> Digest: ...

    def boundary(self, after: Key | None, until: Key | None, rows: int) -> Key | None:
        """The key of the row that is this many rows behind ``after``; null when there are fewer."""
        ...

    def hashes_within(self, after: Key | None, until: Key | None) -> Columns:
        """As ``hashes``, of all rows of this range."""
        ...


class ComparedRows(Protocol):
    """The rows that a target has of one table, asked for what is needed to compare them with the source's.

    Values are texts; hashes are those of ``changes/digest.py``. A target that holds something else than PostgreSQL's
    texts prints them as PostgreSQL does; where it cannot, for all that it knows, ``held`` says what it prints instead.
    """

    @property
    def sorted(self) -> SortedRows | None:
        """The same rows where they can be had by ranges of their keys, else null."""
        ...

    @property
    def trimmed(self) -> frozenset[str]:
        """Numeric columns of which trailing zeros are not known: they are left out before a row is hashed."""
        ...

    def held(self, position: int, texts: pa.Array[Any]) -> pa.Array[Any]:
        """What is printed here of a column, by its position, where the source prints these texts."""
        ...

    def hashes(self) -> Iterator[Columns]:
        """The columns of the key, and the row's hash as a number with a sign, of all rows, some at a time."""
        ...

    def buckets(self) -> Buckets:
        """Of all rows, each in the bucket that its own hash says."""
        ...

    def rows(self, keys: Columns) -> Columns:
        """All rows with these keys; others that this place takes for equal (1.0 and 1.00) may be among them."""
        ...


class TargetReader(Protocol):
    """Looks at what a target has of one source, to compare it. Raises TargetError."""

    @property
    def name(self) -> str: ...

    def frontier(self) -> Frontier | None:
        """How far the target has got by now."""
        ...

    def snapshot(self, table: Table) -> AbstractContextManager[tuple[Frontier, ComparedRows]]:
        """For the block: how far it is, and the rows that readers see of this table then.

        Raises TargetError, with the sentence of why, when they are not meant to be the source's at that place: the
        table is stopped, is being filled, or has another shape.
        """
        ...
