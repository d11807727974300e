"""Changing one source's feed, so that a crash at any moment leaves what the next writer can put in order.

The frontier file is replaced by a rename, and only after the bytes that it speaks of are durable: this is the commit.
All else follows from what it says:

- bytes of the active file behind the committed length are what an unfinished ``apply`` left: they are cut off;
- no active file, but one with the next number and of just that length: a rotation that was interrupted is finished;
- a null frontier: whatever there is was left by a first ``apply`` or by a removal that did not finish: it is deleted;
- anything else was not done by Catchment, and going on would lose or double changes: it is refused.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from catchment.model.errors import TargetUnreachable
from catchment.model.frontier import Frontier
from catchment.targets.feed.committed import BEGINNING, Committed
from catchment.targets.feed.files import FeedFiles, size


class FeedWriter:
    """Appends to the active file of one feed; made by ``opened``. Raises TargetUnreachable and TargetRefused."""

    def __init__(self, files: FeedFiles, descriptor: int, committed: Committed) -> None:
        self._files = files
        self._descriptor = descriptor
        self._end = committed.length
        self._counts = committed.length
        self.committed = committed

    def write(self, data: bytes) -> None:
        """Append; it counts from the next commit on."""
        with self._files.translated():
            rest = memoryview(data)
            while rest:
                written = os.pwrite(self._descriptor, rest, self._end)
                self._end += written
                rest = rest[written:]

    def commit(self, frontier: Frontier) -> None:
        """Make all that was written part of the feed, together with the frontier. Durable on return."""
        committed = Committed(frontier, self._end, self.committed.next)
        with self._files.translated():
            os.fsync(self._descriptor)
            # Whatever the next step raises, the new frontier file may be in its place already.
            self._counts = self._end
            _replace(self._files.frontier_file, committed.to_bytes())
        self.committed = committed

    def discard(self) -> None:
        """Give back the space of what was written and does not count. When this fails, the next opening does it."""
        with suppress(OSError):
            os.ftruncate(self._descriptor, self._counts)

    def rotate(self) -> None:
        """Put the active file, all of it committed, aside under the next number. Nothing can be written after it."""
        committed = self.committed
        rotated = self._files.rotated(committed.next)
        with self._files.translated():
            if size(rotated) is not None:
                raise self._files.refused(f"{rotated} exists already, but not from this feed")
            self._files.active.rename(rotated)
            self.committed = _rotated(self._files, committed)


@contextmanager
def exclusive(files: FeedFiles) -> Iterator[None]:
    """The right to change the feed's files. Raises TargetUnreachable while another process has it.

    A worker whose supervisor was killed may live a little longer, beside the worker of the next run.
    """
    with files.translated():
        files.active.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(files.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with files.translated():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TargetUnreachable(
                    f"another process writes {files.active}",
                    source=files.source,
                    remedy="if it is not an earlier run that is just ending, give each hub its own path",
                ) from error
        yield
    finally:
        os.close(lock)


@contextmanager
def opened(files: FeedFiles) -> Iterator[FeedWriter]:
    """The active file as the frontier file describes it; what is not committed in the end is cut off."""
    committed = _recovered(files)
    with files.translated():
        begins = size(files.active) is None
        descriptor = os.open(files.active, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        with files.translated():
            os.ftruncate(descriptor, committed.length)
            if begins:
                _sync_directory(files.active.parent)
        writer = FeedWriter(files, descriptor, committed)
        try:
            yield writer
        except BaseException:
            writer.discard()
            raise
    finally:
        os.close(descriptor)


def remove(files: FeedFiles) -> None:
    """Delete the feed. Interrupted at any moment, it leaves either the whole feed or one that is about to begin."""
    with files.translated():
        _replace(files.frontier_file, BEGINNING.to_bytes())
        _remove_data(files)
        files.frontier_file.unlink()
        _sync_directory(files.active.parent)


def _recovered(files: FeedFiles) -> Committed:
    """Put the files in order after a crash and say what counts. Raises TargetRefused when that is not possible."""
    committed = files.committed()
    with files.translated():
        if committed is None:
            _replace(files.frontier_file, BEGINNING.to_bytes())
            return BEGINNING
        if committed.frontier is None:
            _remove_data(files)
            return committed
        there = size(files.active)
        if (there or 0) >= committed.length:
            return committed
        if there is None and size(files.rotated(committed.next)) == committed.length:
            return _rotated(files, committed)
    raise files.refused(f"{files.active} has {there or 0} bytes, but {committed.length} were committed")


def _rotated(files: FeedFiles, committed: Committed) -> Committed:
    """Commit that the active file has its rotated name now."""
    after = Committed(committed.frontier, 0, committed.next + 1)
    _sync_directory(files.active.parent)
    _replace(files.frontier_file, after.to_bytes())
    return after


def _remove_data(files: FeedFiles) -> None:
    for path in files.all_rotated():
        path.unlink()
    files.active.unlink(missing_ok=True)
    # Before anything else is said of the feed: what a crash brings back must not look like data of a new one.
    _sync_directory(files.active.parent)


def _replace(path: Path, data: bytes) -> None:
    """Give the file this content in one step that survives a crash of the machine."""
    new = path.with_name(f"{path.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.replace(path)
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
