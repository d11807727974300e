"""Files on a local disk, those of a lake and those of its cache: durable before they count, and never half there.

delta-rs does not wait for the disk, so whatever a commit depends on is written here.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catchment.model.errors import TargetRefused, TargetUnreachable
from catchment.targets.lake.store import Content, Found

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_MISPLACED = frozenset({errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


class LocalStore:
    """A directory as a ``Store``, and what the cache of a lake needs besides."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def location(self, path: str) -> str:
        """Where other readers find it."""
        return str(self._root / path)

    def read(self, path: str) -> bytes | None:
        """The content; null when there is no such file."""
        with self._translated(path):
            try:
                return (self._root / path).read_bytes()
            except FileNotFoundError:
                return None

    def open(self, path: str) -> pa.NativeFile:
        """To be read from anywhere in it."""
        with self._translated(path):
            source: Any = pa.OSFile
            opened: pa.NativeFile = source(str(self._root / path), "rb")
            return opened

    def names(self, directory: str) -> list[str]:
        """What is in a directory, in order; nothing when it is not there."""
        with self._translated(directory):
            try:
                return sorted(place.name for place in (self._root / directory).iterdir())
            except FileNotFoundError:
                return []

    def files(self, directory: str) -> list[Found]:
        """All files below a directory, in the order of their paths; nothing when it is not there."""
        top = self._root / directory
        found = []
        with self._translated(directory):
            for parent, _, names in os.walk(top, onerror=_unless_gone):
                for name in names:
                    place = Path(parent) / name
                    with suppress(FileNotFoundError):
                        status = place.stat()
                        modified = datetime.fromtimestamp(status.st_mtime, UTC)
                        found.append(Found(place.relative_to(top).as_posix(), status.st_size, modified))
        return sorted(found, key=attrgetter("path"))

    def write(self, files: Mapping[str, Content]) -> None:
        """Write new files, whose names nobody else uses. Durable on return."""
        directories = dict.fromkeys((self._root / path).parent for path in files)
        for directory in directories:
            self._make(directory)
        for path, content in files.items():
            with self._translated(path):
                _write(self._root / path, content)
        for directory in directories:
            self._sync(directory)

    def create(self, path: str, content: bytes) -> bool:
        """Write a file whole unless there is one already; whether it was written. Durable on return."""
        place = self._root / path
        self._make(place.parent)
        passing = place.with_name(f".{place.name}.{uuid4().hex}")
        with self._translated(path):
            try:
                _write(passing, content)
                try:
                    os.link(passing, place)
                except FileExistsError:
                    return False
            finally:
                with suppress(OSError):
                    passing.unlink(missing_ok=True)
        self._sync(place.parent)
        return True

    def replace(self, path: str, content: bytes) -> None:
        """Give a file this content in one step. Durable on return."""
        place = self._root / path
        self._make(place.parent)
        passing = place.with_name(f".{place.name}.{uuid4().hex}")
        with self._translated(path):
            _write(passing, content)
            passing.replace(place)
        self._sync(place.parent)

    def rename(self, path: str, to: str) -> None:
        """Let a directory take the place of another one, if there is one."""
        self.remove(to)
        with self._translated(path):
            (self._root / path).rename(self._root / to)

    def map(self, path: str, rows: int, columns: int) -> npt.NDArray[np.uint64]:
        """A file of numbers, row by row: read where it is looked at."""
        with self._translated(path):
            return np.memmap(self._root / path, dtype=np.uint64, mode="r", shape=(rows, columns))

    def size(self, path: str) -> int | None:
        """In bytes; null when there is no such file."""
        with self._translated(path):
            try:
                return (self._root / path).stat().st_size
            except FileNotFoundError:
                return None

    def remove(self, *paths: str) -> None:
        """Delete files or whole directories, if they are there. Gone for good on return."""
        for path in paths:
            place = self._root / path
            with self._translated(path):
                if place.is_dir():
                    shutil.rmtree(place)
                else:
                    place.unlink(missing_ok=True)
        for directory in {(self._root / path).parent for path in paths}:
            if directory.exists():
                self._sync(directory)

    def remove_if_empty(self, directory: str) -> None:
        """People may keep things of their own there."""
        with suppress(OSError):
            (self._root / directory).rmdir()

    def _make(self, directory: Path) -> None:
        missing = []
        while not directory.is_dir():
            missing.append(directory)
            directory = directory.parent
        for made in reversed(missing):
            with self._translated(str(made)):
                made.mkdir(mode=0o700, exist_ok=True)
            self._sync(made.parent)

    def _sync(self, directory: Path) -> None:
        with self._translated(str(directory)):
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = f"{self._root / path}: {error.strerror or error}"
            if error.errno in _FORBIDDEN:
                raise TargetRefused(what, remedy="let the user that runs Catchment write there") from error
            if error.errno in _MISPLACED:
                raise TargetRefused(what, remedy="give [lake] another uri") from error
            remedy = "free some space" if error.errno in _FULL else "check the disk"
            raise TargetUnreachable(what, remedy=f"{remedy}; it is tried again") from error


def _unless_gone(error: OSError) -> None:
    """Files that are being written have another name for a moment."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _write(place: Path, content: Content) -> None:
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
