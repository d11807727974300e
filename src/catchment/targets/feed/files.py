"""The names of the files that one source's feed is made of, and what the operating system says about them."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catchment.model.errors import TargetRefused, TargetUnreachable
from catchment.targets.feed.committed import Committed

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_MISPLACED = frozenset({errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


class FeedFiles:
    """One source's feed on disk: the active file, its frontier file beside it, and the rotated files."""

    def __init__(self, source: str, active: Path) -> None:
        self.source = source
        self.active = active
        self.frontier_file = active.with_name(f"{active.name}.frontier")
        self.lock_file = active.with_name(f"{active.name}.lock")

    def rotated(self, number: int) -> Path:
        """The name that the active file gets when it is rotated under this number."""
        return self.active.with_name(f"{self.active.stem}-{number:012d}{self.active.suffix}")

    def all_rotated(self) -> list[Path]:
        """The rotated files that are still there, oldest first. Raises OSError."""
        pattern = re.compile(rf"{re.escape(self.active.stem)}-[0-9]{{12}}{re.escape(self.active.suffix)}")
        directory = self.active.parent
        beside = directory.iterdir() if directory.exists() else ()
        return sorted(path for path in beside if pattern.fullmatch(path.name))

    def committed(self) -> Committed | None:
        """What the frontier file says; null when there is neither that file nor any data.

        Raises TargetUnreachable; TargetRefused when the frontier file does not read back, or is missing beside data.
        """
        with self.translated():
            data = _content(self.frontier_file)
            if data is None:
                if not size(self.active) and not self.all_rotated():
                    return None
                # A first apply elsewhere writes the frontier file before any data: it may have done so by now.
                data = _content(self.frontier_file)
        if data is None:
            raise self.refused(f"{self.frontier_file} is missing: nobody knows how far {self.active} has got")
        try:
            return Committed.from_bytes(data)
        except ValueError as error:
            raise self.refused(f"{self.frontier_file} does not read back as it was written") from error

    def refused(self, what: str) -> TargetRefused:
        """The error for files that are not as Catchment left them."""
        remedy = "put the file back as it was, or move all files of this feed away: it then begins anew with a refill"
        return TargetRefused(what, source=self.source, remedy=remedy)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn the operating system's errors into TargetUnreachable and TargetRefused."""
        try:
            yield
        except OSError as error:
            what = f"{error.filename or self.active}: {error.strerror}"
            if error.errno in _FORBIDDEN:
                remedy = "let the user that runs Catchment write there"
                raise TargetRefused(what, source=self.source, remedy=remedy) from error
            if error.errno in _MISPLACED:
                raise TargetRefused(what, source=self.source, remedy="give the feed another path") from error
            remedy = "free some space" if error.errno in _FULL else "check the disk"
            raise TargetUnreachable(what, source=self.source, remedy=f"{remedy}; it is tried again") from error


def size(path: Path) -> int | None:
    """The file's length in bytes; null when there is no such file. Raises OSError."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
