"""The change feed: every change as a line of JSON, in order, exactly once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from catchment.changes.jsonlines import render
from catchment.model.batch import Batch
from catchment.model.frontier import Frontier
from catchment.targets.base import Pace
from catchment.targets.feed.files import FeedFiles
from catchment.targets.feed.writer import exclusive, opened, remove

_PACE = Pace(delay=0.0, bytes=16 * 2**20)


class FeedTarget:
    """Appends each source's changes to its own file; docs/reference/feed.md describes the files and their lines.

    ``path`` has ``{source}`` in it. An active file of at least ``rotate_bytes`` bytes is put aside once an ``apply`` is
    committed. No file stays open between two calls: each begins from what is on disk, whatever happened before.
    """

    scope: Literal["source"] = "source"

    def __init__(self, name: str, path: str, rotate_bytes: int = 256 * 2**20, pace: Pace = _PACE) -> None:
        self.name = name
        self.pace = pace
        self._path = path
        self._rotate_bytes = rotate_bytes

    def frontier(self, source: str) -> Frontier | None:
        """Where the feed stands, as its frontier file says."""
        committed = self._files(source).committed()
        return committed.frontier if committed else None

    def apply(self, source: str, batches: Iterable[tuple[Frontier, Batch]], durable: bool = True) -> None:
        """Write as it renders, one batch in memory at a time; then one commit for all of it."""
        files = self._files(source)
        with exclusive(files), opened(files) as writer:
            reached = writer.committed.frontier
            for frontier, batch in batches:
                if reached is None or not reached.covers(frontier):
                    writer.write(render(source, batch.rows, batch.events, frontier.log))
                    reached = frontier
            if reached is None or reached == writer.committed.frontier:
                return
            writer.commit(reached)
            if writer.committed.length >= self._rotate_bytes:
                writer.rotate()

    def tend(self, source: str, seconds: float) -> bool:
        """There is nothing to do."""
        return False

    def out_of_date(self, source: str) -> Mapping[str, str | None]:
        """Nothing: a feed takes every change of every table."""
        return {}

    def forget(self, source: str) -> None:
        """Delete all files of this source's feed, rotated ones too; the empty lock file stays."""
        files = self._files(source)
        with exclusive(files):
            remove(files)

    def close(self) -> None:
        """Nothing is held between two calls."""

    def _files(self, source: str) -> FeedFiles:
        return FeedFiles(source, Path(self._path.replace("{source}", source)))
