"""Finding the keys worth a closer look: digests of both sides are compared, the target's a moment before the source's.

Whatever is the same then is proven. Of what is not, most is only on its way.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import numpy as np

from catchment.changes.digest import Columns, Key
from catchment.model.lsn import Lsn
from catchment.pipeline.verify_place import Places
from catchment.pipeline.verify_verdict import unlike
from catchment.postgres.catalog import PublishedTable
from catchment.postgres.comparing import ComparedTable
from catchment.postgres.reading import SourceReader

_FIRST_ROWS, _MOST_ROWS = 2_000, 64_000
_ROWS_A_GROUP = 200_000
_SHORT_SECONDS, _LONG_SECONDS = 0.1, 0.5
_LONGEST_PAUSE_SECONDS = 2.0


class Walk:
    """Goes over a table with a key once. ``watch`` hears of rows as they are compared.

    ``position``: the lowest place of the target that anything was compared at, null before that.
    """

    def __init__(
        self,
        places: Places,
        source: SourceReader,
        published: PublishedTable,
        theirs: ComparedTable,
        watch: Callable[[int], None],
    ) -> None:
        self._places = places
        self._source = source
        self._published = published
        self._theirs = theirs
        self._watch = watch
        self._took = 0.0
        self.position: Lsn | None = None

    def candidates(self) -> Iterator[Columns]:
        """Keys that were not the same on both sides; some more than once. Raises CatchmentError."""
        with self._places.snapshot(self._published.table) as (frontier, ours):
            self.position = frontier.lsn
            sorts_alike = None not in ours.order and list(ours.order) == self._theirs.order
        return self._by_ranges() if sorts_alike else self._by_buckets()

    def _by_ranges(self) -> Iterator[Columns]:
        """Range by range, in the order of the source's index; the last one has no end.

        Each side's ranges together hold all its rows, whatever its order, so that nothing is passed over even where
        the two orders are not the same after all.
        """
        after: Key | None = None
        size = _FIRST_ROWS
        while True:
            self._took = 0.0
            with self._reading():
                until = self._theirs.boundary(after, None, size)
            yield from self._range(after, until)
            if until is None:
                return
            after = until
            if self._took < _SHORT_SECONDS:
                size = min(size * 2, _MOST_ROWS)
            elif self._took > _LONG_SECONDS:
                size = max(size // 2, _FIRST_ROWS)
            # At most half of one core of the source.
            time.sleep(min(self._took, _LONGEST_PAUSE_SECONDS))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """A snapshot of the source for the block, and how long it took."""
        began = time.monotonic()
        with self._source.snapshot(self._published):
            yield
        self._took += time.monotonic() - began

    def _range(self, after: Key | None, until: Key | None) -> Iterator[Columns]:
        """Halves of it while it is long, then its keys."""
        table = self._published.table
        with self._places.snapshot(table) as (_, ours):
            own = ours.digest(after, until)
        with self._reading():
            their = self._theirs.digest(after, until)
        if own == their:
            self._watch(their.rows)
            return
        if max(own.rows, their.rows) > _MOST_ROWS:
            middle = self._middle(after, until, own.rows, their.rows)
            if middle is not None:
                yield from self._range(after, middle)
                yield from self._range(middle, until)
                return
        with self._places.snapshot(table) as (_, ours):
            own_hashes = ours.hashes(after, until)
        with self._reading():
            their_hashes = self._theirs.hashes(after, until)
        self._watch(len(their_hashes[0]))
        yield unlike(their_hashes, own_hashes)

    def _middle(self, after: Key | None, until: Key | None, own: int, their: int) -> Key | None:
        """A key amidst the rows of the side that has more of them."""
        if their >= own:
            with self._reading():
                return self._theirs.boundary(after, until, their // 2)
        with self._places.snapshot(self._published.table) as (_, ours):
            return ours.boundary(after, until, own // 2)

    def _by_buckets(self) -> Iterator[Columns]:
        """For keys that sort differently on the two sides, or may do so: by a hash of the key, each side read whole."""
        table = self._published.table
        with self._places.snapshot(table) as (_, ours):
            own = ours.buckets()
        with self._reading():
            their = self._theirs.buckets()
        differing = their.differing(own)
        rows = np.maximum(their.rows, own.rows)
        self._watch(int(their.rows.sum() - their.rows[differing].sum()))
        while differing:
            fitting = int(np.searchsorted(np.cumsum(rows[differing]), _ROWS_A_GROUP, side="right"))
            group, differing = differing[: max(fitting, 1)], differing[max(fitting, 1) :]
            with self._places.snapshot(table) as (_, ours):
                own_hashes = ours.hashes_in(group)
            with self._reading():
                their_hashes = self._theirs.hashes_in(group)
            self._watch(len(their_hashes[0]))
            yield unlike(their_hashes, own_hashes)
