"""A place for servers that goes, and they with it, however this interpreter ends; and the user that they run as."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from functools import cache
from itertools import count
from pathlib import Path
from typing import IO, Any

from catchment.model.errors import ConfigError

_PID_FILE = "server.pid"

# A server writes its own pid before it becomes what it shall be, and does not where the guard has moved its directory
# away: so the guard, which moves first, knows of every server there is.
_SERVER = 'printf %s $$ >"$0" && exec "$@"'
_GUARD = f"""
exec 3<&0
(
    read -r _ <&3
    mv "$0" "$0.ended" || exit
    for file in "$0.ended"/*/{_PID_FILE}; do
        [ -f "$file" ] && kill -QUIT "$(cat "$file")"
    done
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        rm -rf "$0.ended" && exit
        sleep 1
    done
) &
"""
_numbers = count(1)


def scratch_directory() -> Path:
    """A new empty directory, short enough for a unix socket in it, that belongs to the server's user."""
    directory = _guarded_directory() / str(next(_numbers))
    directory.mkdir(mode=0o700)
    if whose := server_user():
        os.chown(directory, *whose)
    return directory


@cache
def _guarded_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="catchment-", dir=os.environ.get("CATCHMENT_SCRATCH")))
    if whose := server_user():
        os.chown(directory, *whose)
    # The guard reads from a pipe whose other end closes when this interpreter ends, even by SIGKILL.
    guard_end, _our_end = os.pipe()
    subprocess.run(
        ["/bin/sh", "-c", _GUARD, directory],
        check=True,
        stdin=guard_end,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(guard_end)
    return directory


def start_server(home: Path, *command: str | Path, output: IO[bytes], **how: Any) -> subprocess.Popen[bytes]:
    """Start what ends when this interpreter does. ``home``: a scratch directory, with one server at a time."""
    return subprocess.Popen(
        ["/bin/sh", "-c", _SERVER, home / _PID_FILE, *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,  # Ctrl-C is for us
        **how,
    )


def server_ended(home: Path) -> None:
    """Its pid may be another's by now."""
    (home / _PID_FILE).unlink(missing_ok=True)


@cache
def server_user() -> tuple[int, int] | None:
    """PostgreSQL refuses to run as root: the user and group it gets then; null for who we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return user.pw_uid, user.pw_gid
    return 65534, 65534


def as_server() -> dict[str, Any]:
    """Arguments of ``subprocess`` that let a program run as the server's user."""
    # The caller's directory may be closed to the server's user, and its PG… variables are meant for other servers.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    whose = server_user()
    as_whom = {"user": whose[0], "group": whose[1], "extra_groups": []} if whose else {}
    return {"cwd": "/", "env": environment, **as_whom}


def reachable(path: Path) -> bool:
    """Whether the server's user may enter this directory, or run this program."""
    test = subprocess.run(["/bin/sh", "-c", 'test -x "$0"', path], check=False, **as_server())
    return test.returncode == 0


def run(program: Path | str, *arguments: str | Path) -> str:
    """What it prints when it runs as the server's user. Raises ConfigError when it fails."""
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [program, *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,  # Ctrl-C is for us
            **as_server(),
        )
    except OSError as error:
        raise ConfigError(f"{program} cannot be run: {error.strerror}", remedy="correct PATH, or PG_BIN") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise ConfigError(f"{Path(program).name} failed: {said[-1] if said else f'exit status {done.returncode}'}")
    return done.stdout
