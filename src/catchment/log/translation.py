"""What SQLite and the file system report, as errors of ours."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catchment.model.errors import CatchmentError, LogBusy, LogCorrupt, LogError, LogFull

DAMAGED = (
    "check the disk; then stop the hub, run `catchment source drop NAME` and start it again: it begins anew with this "
    "source, and its targets are refilled"
)

_LOCAL_DISK = "the log needs a local disk that it may write to"
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_WRITTEN = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_WRITE,
        sqlite3.SQLITE_IOERR_FSYNC,
        sqlite3.SQLITE_IOERR_DIR_FSYNC,
        sqlite3.SQLITE_IOERR_TRUNCATE,
        sqlite3.SQLITE_IOERR_SHMOPEN,
        sqlite3.SQLITE_IOERR_SHMSIZE,
        sqlite3.SQLITE_IOERR_SHMMAP,
    }
)


@contextmanager
def translated(source: str, path: Path) -> Iterator[None]:
    """SQLite's and the file system's errors as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(error, source, path) from error
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise LogFull(f"{path}: {error.strerror}", source=source) from error
        raise LogError(f"{path}: {error.strerror}", source=source, remedy=_LOCAL_DISK) from error


def _translate(error: sqlite3.Error, source: str, path: Path) -> CatchmentError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    what = f"{path}: {error}"
    if code in _NOT_WRITTEN:
        return LogFull(what, source=source)
    match code & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return LogBusy(what, source=source)
        case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return LogError(what, source=source, remedy=_LOCAL_DISK)
        case sqlite3.SQLITE_TOOBIG:
            return LogError(
                what, source=source, remedy="one change is larger than the log can hold: leave its column out"
            )
        case _:
            return damaged(what, source)


def damaged(what: str, source: str) -> LogCorrupt:
    """A file does not read back as it was written."""
    return LogCorrupt(what, source=source, remedy=DAMAGED)
