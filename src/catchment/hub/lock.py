"""One ``catchment run`` for each state directory."""

from __future__ import annotations

import fcntl
import os
import pwd
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from catchment.model.errors import HubBusy, HubError

FILE = "run.lock"

_ATTEMPTS = 5  # ``held`` has the lock for an instant while it looks
_PAUSE = 0.02


class StateLock:
    """Held from here to ``release``, or to the end of the process however it ends.

    Makes the directory, for its owner only, when there is none. Raises HubBusy with the holder's process id, HubError
    when the directory cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, mode=0o700, exist_ok=True)
            self._file = os.open(directory / FILE, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unusable(directory, error) from error
        for _ in range(_ATTEMPTS):
            if _lock(self._file, fcntl.LOCK_EX):
                break
            time.sleep(_PAUSE)
        else:
            holder = os.pread(self._file, 20, 0).decode() or "that is just starting"
            os.close(self._file)
            raise HubBusy(f"another `catchment run`, process {holder}, holds {directory}")
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        os.ftruncate(self._file, 0)
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def held(directory: Path) -> bool:
    """Whether a hub runs on this state directory. Raises HubError when the directory cannot be looked at."""
    try:
        file = os.open(directory / FILE, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unusable(directory, error) from error
    try:
        return not _lock(file, fcntl.LOCK_SH)
    finally:
        os.close(file)


def _lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def see_usable(directory: Path) -> None:
    """Raises HubError when no hub of this user could keep anything there; leaves no trace."""
    try:
        there = next(place for place in (directory, *directory.parents) if place.exists())
        Path(tempfile.mkdtemp(prefix=".catchment-", dir=there)).rmdir()
    except OSError as error:
        raise _unusable(directory, error) from error


def _unusable(directory: Path, error: OSError) -> HubError:
    remedy = "name a directory of its own as [hub] state, where this user may make one"
    if isinstance(error, PermissionError) and (owner := _owner(directory)) is not None:
        remedy = f"run this command as {owner}, whose hub keeps its state there"
    return HubError(f"cannot use {directory}: {error.strerror}", remedy=remedy)


def _owner(directory: Path) -> str | None:
    """Another user whose directory this is; null when it is nobody's, or ours."""
    try:
        owner = directory.stat().st_uid
        return None if owner == os.geteuid() else pwd.getpwuid(owner).pw_name
    except OSError:
        return None
    except KeyError:
        return f"the user with id {owner}"
