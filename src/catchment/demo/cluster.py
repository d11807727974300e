"""PostgreSQL servers for the demo and the tests: found, started, crashed and removed again.

They are real servers with throw-away data. Whoever can log in to this machine can connect to them as superuser
(authentication is ``trust``, addresses are a unix socket and 127.0.0.1): never put data there that matters.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Literal, Self

from psycopg.conninfo import make_conninfo

from catchment.demo.binaries import find_binaries, readable
from catchment.demo.scratch import as_server, run, scratch_directory, server_ended, server_user, start_server
from catchment.model.errors import ConfigError

__all__ = ["Cluster", "find_binaries"]

SETTINGS: Mapping[str, str | int] = {
    "listen_addresses": "127.0.0.1",
    "max_connections": 100,
    "max_replication_slots": 20,
    "max_wal_senders": 20,
    "wal_level": "logical",
}

_PATIENCE = 60.0  # seconds for a server to start or to stop
_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_template_lock = Lock()


class Cluster:
    """One server with its own data, superuser ``postgres`` and no password; nothing runs before ``start``.

    ``directory`` is the data directory: a temporary one when none is given; a given one that holds a cluster is used as
    it is, and stays. ``settings`` are put over ``SETTINGS``; a change takes effect at the next start. The port stays
    the same for the life of this object. As a context manager it starts, and removes all that it made.
    """

    def __init__(
        self,
        binaries: Path | None = None,
        *,
        directory: Path | None = None,
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        self.binaries = readable(binaries or find_binaries())
        self.home = scratch_directory()
        self.directory = directory or self.home / "data"
        self.settings = {**SETTINGS, **(settings or {})}
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def dsn(self, dbname: str = "postgres", **extra: Any) -> str:
        """For libpq, over the unix socket; ``host="127.0.0.1"`` for TCP."""
        where = {"host": str(self.home), "port": self.port, "user": "postgres", "dbname": dbname}
        return make_conninfo("", **{**where, **extra})

    def start(self) -> None:
        """Returns when connections are accepted, after recovery if there was a crash. Raises ConfigError."""
        if self.running:
            return
        if not (self.directory / "PG_VERSION").exists():
            _copy_template(self.binaries, self.directory)
        settings = {"port": self.port, "unix_socket_directories": self.home, **self.settings}
        quoted = {name: str(setting).replace("'", "''") for name, setting in settings.items()}
        lines = [f"{name} = '{setting}'\n" for name, setting in quoted.items()]
        (self.directory / "cluster.conf").write_text("".join(lines))
        (self.directory / "cluster.conf").chmod(0o644)  # ours, and the server reads it
        main = self.directory / "postgresql.conf"
        include = "include 'cluster.conf'\n"
        if include not in main.read_text():
            with main.open("a") as file:
                file.write(include)
        with (self.home / "postgres.log").open("ab") as log:
            postgres = self.binaries / "postgres"
            self._process = start_server(self.home, postgres, "-D", self.directory, output=log, **as_server())
        self._wait_until_ready(self._process)

    def stop(self, mode: Literal["fast", "immediate", "smart"] = "fast") -> None:
        """Returns when it has ended. Raises ConfigError when it does not, for instance because of a connected client.

        Modes: https://www.postgresql.org/docs/current/server-shutdown.html
        """
        if self._process is None:
            return
        if self.running:
            self._process.send_signal(_STOP_SIGNALS[mode])
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            raise ConfigError(
                f"PostgreSQL on port {self.port} does not stop", remedy="end its clients, or stop it with `immediate`"
            ) from None
        self._ended()

    def restart(self, mode: Literal["fast", "immediate", "smart"] = "fast") -> None:
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """A crash: SIGKILL to the server and all its processes. ``start`` recovers."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGSTOP)  # forks no more
        children = _children(self._process.pid)
        for child in children:
            _send(child, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        while any(map(_alive, children)):  # a new server refuses to start beside them
            time.sleep(0.005)
        self._ended()

    def remove(self) -> None:
        """End the server and delete what was made for it; a data directory that was given stays."""
        self.stop("immediate")
        shutil.rmtree(self.home, ignore_errors=True)

    def run(self, program: str, *arguments: str | Path) -> str:
        """What one of PostgreSQL's programs, run as the server's user, prints. Raises ConfigError when it fails."""
        return run(self.binaries / program, *arguments)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        # As pg_ctl does: the eighth line of the file is the state of the server whose pid is in the first.
        pid_file = self.directory / "postmaster.pid"
        deadline = time.monotonic() + _PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            lines = pid_file.read_text().splitlines() if pid_file.exists() else []
            if len(lines) >= 8 and lines[0] == str(process.pid) and lines[7].strip() in ("ready", "standby"):
                return
            time.sleep(0.005)
        self.kill()
        log = (self.home / "postgres.log").read_text(errors="replace").splitlines()
        reason = " / ".join(log[-3:])
        raise ConfigError(f"PostgreSQL did not start: {reason}", remedy="correct that, or choose another with PG_BIN")

    def _ended(self) -> None:
        self._process = None
        server_ended(self.home)


def _copy_template(binaries: Path, directory: Path) -> None:
    """A new cluster: copied from a template, which is several times faster than initdb, with an identity of its own."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if whose := server_user():
        os.chown(directory, *whose)
    run("cp", "-a", f"{_template(binaries)}/.", directory)
    # Without its control file pg_resetwal draws a new system identifier. Numbers and WAL go on well behind initdb's.
    os.truncate(directory / "global" / "pg_control", 0)
    behind = ("--next-transaction-id=10000", "--next-oid=20000", "--next-wal-file=000000010000000000000004")
    run(binaries / "pg_resetwal", "--force", *behind, directory)


def _template(binaries: Path) -> Path:
    with _template_lock:
        return _make_template(binaries)


@cache
def _make_template(binaries: Path) -> Path:
    home = scratch_directory()
    options = ("--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
    run(binaries / "initdb", *options, "-D", home / "template")
    for segment in (home / "template" / "pg_wal").glob("0*"):
        segment.unlink()  # pg_resetwal makes a new one
    return home / "template"


def _free_port() -> int:
    # Below the range from which outgoing connections get theirs: it must still be free after a restart.
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise ConfigError("no free port between 20000 and 32000", remedy="end some of what listens on 127.0.0.1")


def _children(parent: int) -> list[int]:
    # Only Linux tells; elsewhere a server's processes notice by themselves that it is gone.
    return [int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat") if _state(stat)[1] == str(parent)]


def _alive(pid: int) -> bool:
    return _state(Path(f"/proc/{pid}/stat"))[0] not in ("", "Z")


def _state(stat: Path) -> tuple[str, str]:
    """State and parent of a process; empty when it is gone."""
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", ""
    return fields[0], fields[1]


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
