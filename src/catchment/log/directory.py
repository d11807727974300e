"""One source's directory of log files: who may write, what may be read, and the wake-up between the two."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from threading import Condition, Lock
from typing import TypeVar
from uuid import UUID

from catchment.log import segment as files
from catchment.log.base import Span
from catchment.log.continuity import NO_LOG
from catchment.log.segment import Segment
from catchment.log.translation import damaged, translated
from catchment.model.errors import LogBusy, LogCorrupt, LogTrimmed

_POLL_SECONDS = 0.01
_READ_BYTES = 2**20
_IDLE_READERS = 4

_Answer = TypeVar("_Answer")


class SourceDirectory:
    """Safe to share between threads. Other processes may read, write, trim and remove the same directory."""

    def __init__(self, path: Path, source: str) -> None:
        self.path = path
        self.source = source
        self.changes = 0
        self._changed = Condition()
        self._written_here = False
        self._idle: list[tuple[Path, int, sqlite3.Connection]] = []
        self._idle_lock = Lock()
        self._idle_most = _IDLE_READERS

    def announce(self) -> None:
        """Wake up all that sleep in this process."""
        with self._changed:
            self.changes += 1
            self._changed.notify_all()

    def sleep(self, seen: int, seconds: float) -> bool:
        """Until ``changes`` is no longer ``seen``, or until it is time to look again where another process may write.

        Returns whether there may be something new.
        """
        with self._changed:
            alone = self._written_here
            changed = self._changed.wait_for(
                lambda: self.changes != seen, seconds if alone else min(seconds, _POLL_SECONDS)
            )
            return changed or not alone

    def lock(self) -> int:
        """The exclusive right to write, until ``unlock`` or the end of the process. Raises LogBusy."""
        with translated(self.source, self.path):
            self._make()
            descriptor = os.open(self.path / "writer.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise LogBusy("another writer has the log open", source=self.source) from error
        self._written_here = True
        return descriptor

    def unlock(self, descriptor: int) -> None:
        self._written_here = False
        os.close(descriptor)
        self.announce()

    def _make(self) -> None:
        above = self.path.parent
        if not above.is_dir():
            above.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.synchronise_directory(above.parent)
        self.path.mkdir(mode=0o700, exist_ok=True)
        files.synchronise_directory(above)

    def span(self, after: int, most_bytes: int) -> Span:
        """What there is to read behind ``after``, cut at ``most_bytes`` but not within the first transaction."""
        return self._look(lambda segments: self._span(segments, after, most_bytes))

    def _span(self, segments: list[Segment], after: int, most_bytes: int) -> Span:
        if not segments:
            return Span(NO_LOG, 1, after, 0, None)
        first = segments[0].first
        with self._reading(segments[-1]) as connection:
            tail, bytes_through = files.read_tail(connection)
        next_offset = max(after + 1, first)
        if tail.offset < next_offset:
            return Span(tail.log, first, max(after, tail.offset), 0, None)
        unread = segments[_position(segments, next_offset) :]
        with self._reading(unread[0]) as connection:
            oldest, bytes_before = self._beginning(connection, unread[0], next_offset)
        last = tail.offset
        if bytes_through - bytes_before > most_bytes:
            last, bytes_through = self._cut(unread, next_offset, bytes_before + most_bytes)
        return Span(tail.log, first, last, bytes_through - bytes_before, files.to_datetime(oldest))

    def _beginning(self, connection: sqlite3.Connection, segment: Segment, offset: int) -> tuple[int, int]:
        """When a batch was appended, and the log's payload bytes before it."""
        found: tuple[int, int] | None = connection.execute(
            'SELECT appended_at, bytes_through - length(payload) FROM batches WHERE "offset" = ?', (offset,)
        ).fetchone()
        if found is None:
            raise self._missing(segment, offset)
        return found

    def _cut(self, segments: list[Segment], next_offset: int, most_through: int) -> tuple[int, int]:
        """The last finished transaction that ends within so many bytes of the log, or else the first one."""
        last = through = 0
        for segment in segments:
            with self._reading(segment) as connection:
                ends = connection.execute(
                    'SELECT "offset", bytes_through FROM batches WHERE "offset" >= ? AND ends_transaction '
                    'ORDER BY "offset"',
                    (next_offset,),
                )
                for offset, bytes_through in ends:
                    if last and bytes_through > most_through:
                        ends.close()
                        return last, through
                    last, through = offset, bytes_through
        return last, through

    def fetch(self, after: int, through: int) -> list[tuple[UUID, int, Path, bytes]]:
        """The next stored batches of finished transactions, about a megabyte of them: log, offset, file and payload.

        An empty list when there are no more. Raises LogTrimmed, LogCorrupt when one is missing.
        """
        return self._look(lambda segments: self._fetch(segments, after, through))

    def _fetch(self, segments: list[Segment], after: int, through: int) -> list[tuple[UUID, int, Path, bytes]]:
        if not segments or after >= through:
            return []
        if after + 1 < segments[0].first:
            raise LogTrimmed(
                f"offset {after + 1} is no longer kept, {segments[0].first} is the first",
                source=self.source,
                remedy="the target is refilled",
            )
        segment = segments[_position(segments, after + 1)]
        fetched: list[tuple[UUID, int, Path, bytes]] = []
        size = 0
        with self._reading(segment) as connection:
            stored = connection.execute(
                'SELECT tail.log, batches."offset", payload FROM batches, tail '
                'WHERE batches."offset" > ? AND batches."offset" <= min(?, tail."offset") ORDER BY batches."offset"',
                (after, through),
            )
            for log, offset, payload in stored:
                if offset != after + 1 + len(fetched):
                    raise self._missing(segment, after + 1 + len(fetched))
                fetched.append((UUID(log), offset, segment.path, payload))
                size += len(payload)
                if size >= _READ_BYTES:
                    break
            stored.close()
        if not fetched and segment.sealed:
            raise self._missing(segment, after + 1)
        return fetched

    def state(self) -> Mapping[str, bytes]:
        """The state saved with finished transactions."""
        return self._look(self._state)

    def _state(self, segments: list[Segment]) -> Mapping[str, bytes]:
        if not segments:
            return {}
        with self._reading(segments[-1]) as connection:
            return files.read_state(connection)

    def trim(self, through: int) -> int:
        """Unlink files whose batches are all at or below ``through``; return the first offset kept."""
        segments = self._segments()
        kept = segments[0].first if segments else 1
        for segment, following in pairwise(segments):
            if following.first > through + 1:
                break
            with translated(self.source, segment.path):
                files.unlink(segment)
            kept = following.first
        if segments and kept != segments[0].first:
            self._segments()  # lets go of what was open
        return kept

    def excess(self, most_bytes: int) -> int:
        """The offset to trim through so that files of at most ``most_bytes`` stay."""
        segments = self._segments()
        with translated(self.source, self.path):
            sizes = [files.stored_bytes(segment) for segment in segments]
        surplus = sum(sizes) - most_bytes
        through = 0
        for (_, following), size in zip(pairwise(segments), sizes, strict=False):
            if surplus <= 0:
                break
            surplus -= size
            through = following.first - 1
        return through

    def remove(self) -> None:
        """Unlink all files. Raises LogBusy while a writer has them open."""
        if not self._segments():
            return
        descriptor = self.lock()
        try:
            # Oldest first: a crash on the way leaves a trimmed log, not one that ends earlier than it did.
            for segment in self._segments():
                with translated(self.source, segment.path):
                    files.unlink(segment)
            self._segments()
        finally:
            self.unlock(descriptor)

    def close(self) -> None:
        """Close what is idle, and from now on everything that is given back."""
        with self._idle_lock:
            self._idle_most = 0
            self._close_idle(lambda _: True)

    def _segments(self) -> list[Segment]:
        """The files as they are now; connections to others are closed, since they hold their space on the disk."""
        segments = files.segments(self.path)
        paths = {segment.path for segment in segments}
        with self._idle_lock:
            self._close_idle(lambda path: path not in paths)
        return segments

    def _missing(self, segment: Segment, offset: int) -> LogCorrupt:
        return damaged(f"{segment.path}: offset {offset} is missing", self.source)

    def _close_idle(self, unwanted: Callable[[Path], bool]) -> None:
        for _, _, connection in [idle for idle in self._idle if unwanted(idle[0])]:
            connection.close()
        self._idle = [idle for idle in self._idle if not unwanted(idle[0])]

    def _look(self, at: Callable[[list[Segment]], _Answer]) -> _Answer:
        """Look at the files as they are now, and again when one was trimmed on the way."""
        while True:
            try:
                return at(self._segments())
            except files.SegmentGone:
                continue

    @contextmanager
    def _reading(self, segment: Segment) -> Iterator[sqlite3.Connection]:
        """A connection for one question. Raises SegmentGone."""
        with translated(self.source, segment.path):
            # A name can come back after `remove`; an open file's inode cannot.
            inode = files.inode(segment)
            connection = self._borrow(segment, inode) or files.connect_reader(segment)
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._give_back(segment.path, inode, connection)

    def _borrow(self, segment: Segment, inode: int) -> sqlite3.Connection | None:
        with self._idle_lock:
            for index, (path, idle_inode, connection) in enumerate(self._idle):
                if path == segment.path and idle_inode == inode:
                    del self._idle[index]
                    return connection
        return None

    def _give_back(self, path: Path, inode: int, connection: sqlite3.Connection) -> None:
        with self._idle_lock:
            self._idle.append((path, inode, connection))
            while len(self._idle) > self._idle_most:
                self._idle.pop(0)[-1].close()


def _position(segments: list[Segment], offset: int) -> int:
    """Where in the list the file is that holds this offset, or will."""
    return bisect_right(segments, offset, key=lambda segment: segment.first) - 1
