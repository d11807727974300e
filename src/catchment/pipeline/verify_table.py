"""Judging rows of one table at one place of the log, exactly.

The source's rows are read in a snapshot. Once the target has passed everything that the snapshot sees, its rows are
read in one too. What the log tells up to there, and the source's snapshot does not see, is applied to the source's
rows: then they must be the target's. It is how a backfill brings rows forward, and decides without trying again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from catchment.changes.digest import Columns
from catchment.model.errors import CatchmentError, TableStopped
from catchment.model.frontier import Frontier
from catchment.model.lsn import Lsn
from catchment.pipeline.verify_place import Places
from catchment.pipeline.verify_verdict import (
    Difference,
    Held,
    as_held,
    brought_forward,
    counted,
    distinct,
    judge,
    touched,
)
from catchment.pipeline.verify_walk import Walk
from catchment.postgres.catalog import PublishedTable
from catchment.postgres.comparing import ComparedTable
from catchment.postgres.reading import SourceReader

MOST_DIFFERENCES = 100_000
"""At so many a table is given up: what it needs is a backfill."""

_KEYS_TO_JUDGE = 2_000
_ROUNDS = 10


class Comparison:
    """One table, and what has come out so far.

    ``rows`` compared; ``differences`` of a table with a key; ``missing`` and ``extra`` rows of one without;
    ``waiting``: rows that differ and that the target is still to be told of. ``position``: the lowest place of the
    target that anything was compared at.
    """

    def __init__(
        self, places: Places, source: SourceReader, published: PublishedTable, watch: Callable[[int], None]
    ) -> None:
        self._places = places
        self._source = source
        self._published = published
        self._table = published.table
        self._watch = watch
        self.rows = self.missing = self.extra = self.waiting = 0
        self.differences: list[Difference] = []
        self.position: Lsn | None = None

    def run(self) -> None:
        """Compare all rows. Raises CatchmentError when that cannot be done, or not to the end."""
        with self._places.snapshot(self._table) as (_, ours):
            trimmed = ours.trimmed
        theirs = self._source.compared(self._published, trimmed)
        if not self._table.key:
            self._judge_bag(theirs)
            return
        walk = Walk(self._places, self._source, self._published, theirs, self._count)
        found: list[Columns] = []
        for keys in walk.candidates():
            self.position = walk.position
            found.append(keys)
            if sum(len(columns[0]) for columns in found) >= _KEYS_TO_JUDGE:
                self._judge_all(theirs, found)
                found = []
        self.position = walk.position
        self._judge_all(theirs, found)

    def _count(self, rows: int) -> None:
        self.rows += rows
        self._watch(self.rows)

    def _judge_all(self, theirs: ComparedTable, found: list[Columns]) -> None:
        if not any(len(columns[0]) for columns in found):
            return
        keys = distinct([pa.concat_arrays(parts) for parts in zip(*found, strict=True)])
        for start in range(0, len(keys[0]), _KEYS_TO_JUDGE):
            self._judge(theirs, [column.slice(start, _KEYS_TO_JUDGE) for column in keys])
            if len(self.differences) >= MOST_DIFFERENCES:
                raise self._given_up(
                    f"was given up at {len(self.differences):,} differing rows",
                    f"`catchment backfill {self._source.name} {self._table}` reads it again",
                )

    def _judge(self, theirs: ComparedTable, keys: Columns) -> None:
        for _ in range(_ROUNDS):
            with self._places.sight(self._published) as (sight, offset):
                their = theirs.rows(keys)
            self._places.come_to(sight.fence)
            with self._places.snapshot(self._table) as (frontier, ours):
                keys = as_held(self._table, keys, ours.held)
                own = ours.rows(keys)
            kept = self._places.kept(self._table, offset, frontier.offset, sight.snapshot)
            if kept is None:
                continue
            verdict = judge(self._table, keys, their, kept, own, ours.held)
            if frontier.lsn < sight.fence:
                self._sort_out(verdict.differences, frontier, sight.fence, ours.held)
            else:
                self.differences += verdict.differences
            keys = verdict.unknown
            if not len(keys[0]):
                return
        raise self._given_up(
            f"changed faster than it could be compared, at {len(keys[0])} rows", "verify it again at a quieter time"
        )

    def _sort_out(self, differences: list[Difference], at: Frontier, fence: Lsn, held: Held) -> None:
        """The target does not move: which of these the log, or the source's slot, still explains."""
        if not differences:
            return
        keys: Columns = [pa.array(texts, pa.string()) for texts in zip(*(one.key for one in differences), strict=True)]
        explained = np.zeros(len(differences), dtype=np.bool_)
        for changes in self._places.to_come(self._table, at, fence):
            explained |= True if changes is None else touched(self._table, keys, changes, held)
        self.waiting += int(explained.sum())
        self.differences += [one for one, waits in zip(differences, explained, strict=True) if not waits]

    def _judge_bag(self, theirs: ComparedTable) -> None:
        """A table without a key: as a whole, since its rows have no names."""
        for _ in range(_ROUNDS):
            with self._places.sight(self._published) as (sight, offset):
                their = theirs.buckets()
            self._places.come_to(sight.fence)
            with self._places.snapshot(self._table) as (frontier, ours):
                own = ours.buckets()
            self.position = frontier.lsn
            kept = self._places.kept(self._table, offset, frontier.offset, sight.snapshot)
            if kept is None:
                continue
            self.missing, self.extra = counted(brought_forward(self._table, their, kept, ours.held), own)
            behind = frontier.lsn < sight.fence and self.missing + self.extra > 0
            if behind and any(True for _ in self._places.to_come(self._table, frontier, sight.fence)):
                self.waiting, self.missing, self.extra = self.missing + self.extra, 0, 0
            self._count(int(their.rows.sum()))
            return
        raise self._given_up("was emptied again and again while it was compared", "verify it again at a quieter time")

    def _given_up(self, what: str, remedy: str) -> CatchmentError:
        return TableStopped(what, source=self._source.name, table=str(self._table), remedy=remedy)
