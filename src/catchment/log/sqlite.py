"""The embedded log: per source a directory of SQLite files, nothing to install and nothing to run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from uuid import uuid4

from catchment.log import segment as files
from catchment.log.base import Span, State, Tail
from catchment.log.continuity import NO_CHANGES, Standing
from catchment.log.directory import SourceDirectory
from catchment.log.payload import decode, encode
from catchment.log.translation import DAMAGED, translated
from catchment.model.batch import Batch
from catchment.model.errors import LogCorrupt
from catchment.model.frontier import Frontier

SEGMENT_BYTES = 256 * 2**20


class SqliteLog:
    """All sources' logs below one directory, which must be on a local disk: SQLite shares memory between processes.

    Safe to share between threads. Other processes may read the same directory while one writes.
    """

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._lock = Lock()
        self._sources: dict[str, SourceDirectory] = {}

    def open_writer(self, source: str) -> SqliteWriter:
        return SqliteWriter(self._source(source), self._segment_bytes)

    def wait(self, source: str, after: int, timeout: float, most_bytes: int = sys.maxsize) -> Span:
        directory = self._source(source)
        deadline = time.monotonic() + timeout
        at_first = directory.changes
        while True:
            seen = directory.changes
            span = directory.span(after, most_bytes)
            remaining = deadline - time.monotonic()
            if span.last > after or remaining <= 0 or seen != at_first:
                return span
            if not directory.sleep(seen, remaining):
                return span

    def wake(self, source: str) -> None:
        self._source(source).announce()

    def read(self, source: str, after: int, through: int) -> Iterator[tuple[Frontier, Batch]]:
        directory = self._source(source)
        offset = after
        while fetched := directory.fetch(offset, through):
            for log, offset, path, payload in fetched:
                try:
                    batch = decode(payload)
                except LogCorrupt as error:
                    raise LogCorrupt(
                        f"{path}, offset {offset}: {error.what}", source=source, remedy=error.remedy or DAMAGED
                    ) from error
                yield Frontier(log, offset, batch.until, batch.committed_at), batch

    def state(self, source: str) -> Mapping[str, bytes]:
        return self._source(source).state()

    def trim(self, source: str, through: int) -> int:
        return self._source(source).trim(through)

    def excess(self, source: str, most_bytes: int) -> int:
        return self._source(source).excess(most_bytes)

    def remove(self, source: str) -> None:
        self._source(source).remove()

    def close(self) -> None:
        """Let go of the files. Writers are closed on their own."""
        with self._lock:
            for directory in self._sources.values():
                directory.close()
            self._sources.clear()

    def _source(self, source: str) -> SourceDirectory:
        with self._lock:
            if source not in self._sources:
                self._sources[source] = SourceDirectory(self._directory / source, source)
            return self._sources[source]


class SqliteWriter:
    """Appends to one source's log; for one thread at a time.

    A new file is begun between transactions only, so that each file holds whole ones and a writer that opens has to
    look for unfinished ones in the newest file alone.
    """

    def __init__(self, directory: SourceDirectory, segment_bytes: int) -> None:
        """Make or continue the log. Raises LogBusy, LogFull, LogCorrupt."""
        self._directory = directory
        self._segment_bytes = segment_bytes
        with ExitStack() as opening:
            opening.callback(directory.unlock, directory.lock())
            with translated(directory.source, directory.path):
                self._path = self._newest()
            with translated(directory.source, self._path):
                self._connection = files.connect_writer(self._path)
                opening.callback(lambda: self._connection.close())
                files.discard_unfinished(self._connection)
                frontier, self._bytes_through = files.read_tail(self._connection)
                self._bytes_before = files.bytes_before(self._connection)
                self._standing = Standing.at(Tail(frontier, files.read_state(self._connection)))
            self._opened = opening.pop_all()

    @property
    def tail(self) -> Tail:
        return self._standing.tail

    def append(self, batch: Batch, state: State = NO_CHANGES) -> int:
        standing = self._standing.step(self._directory.source, batch, state)
        payload = encode(batch)
        bytes_through = self._bytes_through + len(payload)
        with translated(self._directory.source, self._path):
            if self._standing.between_transactions and self._bytes_through - self._bytes_before >= self._segment_bytes:
                self._roll()
            with files.transaction(self._connection):
                files.insert_batch(self._connection, standing.offset, batch, datetime.now(UTC), bytes_through, payload)
                if batch.ends_transaction:
                    changes = {**self._standing.pending, **state}
                    files.update_tail(self._connection, standing.tail.frontier, bytes_through, changes)
        self._standing, self._bytes_through = standing, bytes_through
        if batch.ends_transaction:
            self._directory.announce()
        return standing.offset

    def close(self) -> None:
        self._opened.close()

    def _newest(self) -> Path:
        """The file to go on with, made if this is a new log."""
        files.sweep(self._directory.path)
        segments = files.segments(self._directory.path)
        if segments:
            return segments[-1].path
        path = files.segment_path(self._directory.path, 1)
        files.create(path, Standing.start(uuid4()).tail, 0)
        return path

    def _roll(self) -> None:
        """Begin the next file and seal the one before. Tried again by the next append if there is no space for it."""
        path = files.segment_path(self._directory.path, self._standing.offset + 1)
        if not path.exists():
            files.create(path, self._standing.tail, self._bytes_through)
        written, self._connection = self._connection, files.connect_writer(path)
        self._path, self._bytes_before = path, self._bytes_through
        files.seal(written)
