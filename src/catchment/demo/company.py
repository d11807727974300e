"""A whole company on this machine: three services with a PostgreSQL server each, one more for the ODS, and a hub."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from catchment.demo.binaries import find_binaries, version
from catchment.demo.cluster import Cluster
from catchment.demo.history import ORDERS, History, draw, fill
from catchment.demo.hub import HubProcess
from catchment.demo.keeping import instructions, made_to_stay
from catchment.demo.scratch import scratch_directory
from catchment.demo.services import ODS, SERVICES, schema
from catchment.demo.traffic import Schedule, trade
from catchment.model.errors import ConfigError

_SETTINGS: dict[str, str | int] = {
    "fsync": "off",
    "max_slot_wal_keep_size": "4GB",  # a hub that stays away must not fill the disk
    "max_wal_size": "256MB",
    "unix_socket_directories": "",  # who looks in from another terminal finds a port more easily than a directory
}


class Company:
    """Servers, their data, live traffic and a hub, in ``directory``: all of it gone when the block ends.

    With ``keep``, a directory that is empty or not there yet, the files stay as they are then. ``tell`` is given a
    sentence before each stage of the start; what it raises ends the start. Raises ConfigError when there is no
    PostgreSQL on this machine, when a server does not start, and when nothing can be kept there.
    """

    def __init__(self, seed: int, rate: float, keep: Path | None, tell: Callable[[str], None]) -> None:
        self._seed, self._rate, self._tell = seed, rate, tell
        binaries = find_binaries()
        self.directory = made_to_stay(keep) if keep else scratch_directory()
        self._kept = keep is not None
        self._clusters = {
            name: Cluster(binaries, directory=self.directory / name, settings=_SETTINGS) for name in (*SERVICES, ODS)
        }
        self._version = version(binaries)
        self._hub = HubProcess(self.config, self.directory / "run.log")
        self._traffic: Future[None]
        self._ending = ExitStack()

    @property
    def config(self) -> Path:
        """The hub's catchment.toml."""
        return self.directory / "catchment.toml"

    def dsn(self, name: str, user: str = "postgres") -> str:
        """For the database of a service, or for the ODS."""
        return self._clusters[name].dsn(name, host="127.0.0.1", user=user)

    def __enter__(self) -> Self:
        with ExitStack() as files, ExitStack() as running:
            files.callback(shutil.rmtree, self.directory, ignore_errors=True)
            for cluster in self._clusters.values():
                running.callback(self._end, cluster)
            self._tell(f"starting four servers with PostgreSQL {self._version}: {', '.join(self._clusters)}")
            history = self._start()
            self._tell(f"filling in the last six weeks: {ORDERS:,} orders and what became of them")
            _all_at_once(lambda name: self._fill(name, history), SERVICES)
            self._begin_traffic(running, history)
            self._tell("starting the hub")
            self.config.write_text(self._settings())
            running.callback(self._hub.stop)
            self._hub.start()
            made = files.pop_all()
            if not self._kept:
                self._ending.push(made)
            self._ending.push(running.pop_all())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    def entrances(self) -> list[str]:
        """How to look in from another terminal."""
        return [f'psql "{self.dsn(ODS)}"', f"catchment status --watch --config {self.config}"]

    def instructions(self) -> list[str]:
        """How to go on with what was kept; nothing when nothing was."""
        if not self._kept or not self.config.exists():
            return []
        return instructions(self.directory, self._clusters, self.dsn(ODS))

    def must_run(self) -> None:
        """Raises HubDown or SourceUnreachable when the hub or the traffic has ended by itself."""
        self._hub.must_run()
        if self._traffic.done():
            self._traffic.result()

    def _start(self) -> History:
        """The servers, each with its empty tables; the past is drawn meanwhile."""
        with ThreadPoolExecutor() as pool:
            history = pool.submit(draw, self._seed, datetime.now(UTC))
            _all_at_once(self._open, self._clusters)
            return history.result()

    def _open(self, name: str) -> None:
        cluster = self._clusters[name]
        cluster.start()
        with _setting_up(name):
            with psycopg.connect(cluster.dsn(host="127.0.0.1"), autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            with psycopg.connect(self.dsn(name)) as connection:
                connection.execute(schema(name).encode())

    def _fill(self, service: str, history: History) -> None:
        with _setting_up(service), psycopg.connect(self.dsn(service)) as connection:
            fill(connection, service, history)

    def _settings(self) -> str:
        sources = (f'[[source]]\nname = "{name}"\ndsn = "{self.dsn(name, "catchment")}"\n\n' for name in SERVICES)
        return "".join(sources) + f'[ods]\ndsn = "{self.dsn(ODS, "catchment")}"\n'

    def _begin_traffic(self, running: ExitStack, history: History) -> None:
        stop = threading.Event()
        thread = running.enter_context(ThreadPoolExecutor(1, "traffic"))
        running.callback(stop.set)
        databases = {service: self.dsn(service) for service in SERVICES}
        self._traffic = thread.submit(trade, databases, Schedule(self._seed, self._rate, history.ahead), stop)

    def _end(self, cluster: Cluster) -> None:
        if self._kept:
            cluster.stop()  # writes everything down, which `remove` does not wait for
        cluster.remove()


def _all_at_once(act: Callable[[str], None], names: Iterable[str]) -> None:
    """For every name, in a thread each. Raises what one of them raises, when all have ended."""
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(act, name) for name in names]:
            done.result()


@contextmanager
def _setting_up(name: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise ConfigError(f"the database {name} could not be set up: {error}") from error
