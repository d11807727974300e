"""Finding the keys worth a closer look: hashes of both sides are compared, the target's a while before the source's.

Whatever is the same then is proven. Of what is not, most is only on its way. Where keys sort alike on both sides,
digests of ranges of them are compared, halves of those that differ, and no row travels. Elsewhere the hashes of all the
target's rows are at hand, and the source's are looked up among them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from catchment.changes.columns import Truths
from catchment.changes.digest import Columns, Key, MetHashes, from_text
from catchment.model.errors import TableStopped
from catchment.model.lsn import Lsn
from catchment.pipeline.verify_place import Places
from catchment.pipeline.verify_verdict import unlike
from catchment.postgres.catalog import PublishedTable
from catchment.postgres.comparing import ComparedTable
from catchment.postgres.reading import SourceReader
from catchment.targets.base import SortedRows

_FIRST_ROWS, _MOST_ROWS = 2_000, 64_000
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
            sorts_alike = ours.sorted is not None and list(ours.sorted.order) == self._theirs.order
        if not self._theirs.sorted:
            return self._by_hashes(self._all_at_once())
        return self._by_digests() if sorts_alike else self._by_hashes(self._some_at_a_time())

    def _ranges(self) -> Iterator[tuple[Key | None, Key | None]]:
        """All keys in the order of the source's index, as many at a time as it reads in a moment.

        The last range has no end. Whoever takes a range notes how long that took the source, and is paused.
        """
        after: Key | None = None
        size = _FIRST_ROWS
        while True:
            self._took = 0.0
            with self._reading():
                until = self._theirs.boundary(after, None, size)
            yield after, until
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

    def _by_digests(self) -> Iterator[Columns]:
        """Each side's ranges together hold all its rows, whatever its order, so that nothing is passed over even where
        the two orders are not the same after all.
        """
        for after, until in self._ranges():
            yield from self._range(after, until)

    def _range(self, after: Key | None, until: Key | None) -> Iterator[Columns]:
        """Halves of it while it is long, then its keys."""
        with self._sorted() as ours:
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
        with self._sorted() as ours:
            own_hashes = ours.hashes_within(after, until)
        with self._reading():
            their_hashes = self._theirs.hashes_within(after, until)
        self._watch(len(their_hashes[0]))
        yield unlike(their_hashes, own_hashes)

    def _middle(self, after: Key | None, until: Key | None, own: int, their: int) -> Key | None:
        """A key amidst the rows of the side that has more of them."""
        if their >= own:
            with self._reading():
                return self._theirs.boundary(after, until, their // 2)
        with self._sorted() as ours:
            return ours.boundary(after, until, own // 2)

    @contextlib.contextmanager
    def _sorted(self) -> Iterator[SortedRows]:
        with self._places.snapshot(self._published.table) as (_, ours):
            if ours.sorted is None:
                raise TableStopped(
                    "has got another shape in the target",
                    source=self._source.name,
                    table=str(self._published.table),
                    remedy="verify it again in a moment",
                )
            yield ours.sorted

    def _by_hashes(self, theirs: Iterator[Columns]) -> Iterator[Columns]:
        """The source's rows whose hashes the target does not have, then the target's that nobody asked for."""
        table = self._published.table
        with self._places.snapshot(table) as (_, ours):
            own = MetHashes(from_text(part[-1]) for part in ours.hashes())
        for part in theirs:
            self._watch(len(part[0]))
            yield _chosen(part, ~own.meet(from_text(part[-1])))
        if len(unmet := own.unmet()):
            with self._places.snapshot(table) as (_, ours):
                yield from [_chosen(part, np.isin(from_text(part[-1]), unmet)) for part in ours.hashes()]

    def _some_at_a_time(self) -> Iterator[Columns]:
        for after, until in self._ranges():
            with self._reading():
                part = self._theirs.hashes_within(after, until)
            yield part

    def _all_at_once(self) -> Iterator[Columns]:
        """In one snapshot, which is not held for longer than reading takes: keys that have no ranges are rare."""
        with self._reading():
            parts = list(self._theirs.hashes())
        yield from parts


def _chosen(rows: Columns, which: Truths) -> Columns:
    """The keys of these rows."""
    mask = pa.array(which)
    return [column.filter(mask) for column in rows[:-1]]
