"""What stays of a demo, and how to go on with it."""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Iterable
from pathlib import Path

from catchment.demo.binaries import find_binaries, readable
from catchment.demo.scratch import reachable, server_user
from catchment.model.errors import ConfigError


def made_to_stay(directory: Path) -> Path:
    """A directory that servers can keep their data in, whole path. Raises ConfigError.

    It is made when it is not there, and must be empty: servers are never started on files of somebody else.
    """
    directory = directory.absolute()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ConfigError(f"{directory} is not empty", remedy="let --keep name a directory that is not there yet")
        if whose := server_user():
            os.chown(directory, *whose)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be made: {error.strerror}", remedy="let --keep name another") from None
    binaries = find_binaries()
    if not reachable(directory) or readable(binaries) != binaries:
        directory.rmdir()
        raise ConfigError(
            f"PostgreSQL does not run as root, and user {_user()} cannot reach {directory} or {binaries}",
            remedy="run the demo as an ordinary user, or let --keep and PG_BIN name directories that all can enter",
        )
    return directory


def instructions(directory: Path, names: Iterable[str], ods: str) -> list[str]:
    """What to type to have it all back; ``names`` of the servers' directories in there, ``ods``: its dsn."""
    as_user = f"runuser -u {_user()} -- " if server_user() else ""
    pg_ctl = find_binaries() / "pg_ctl"
    return [
        f"{directory} keeps the data. To go on with it:",
        *(
            f"  {as_user}{pg_ctl} start -D {_quoted(directory / name)} -l {_quoted(directory / name / 'server.log')}"
            for name in names
        ),
        f"  catchment run --config {_quoted(directory / 'catchment.toml')}",
        f"  psql {shlex.quote(ods)}",
    ]


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _user() -> str:
    user, _ = server_user() or (os.geteuid(), 0)
    return pwd.getpwuid(user).pw_name
