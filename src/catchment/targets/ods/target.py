"""The operational data store: every source's tables as they are there, in one PostgreSQL database."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import psycopg
from psycopg import sql

from catchment.model.batch import Batch
from catchment.model.errors import TableRefused, TargetWentBack
from catchment.model.frontier import Frontier
from catchment.postgres.connection import Translation, of_target
from catchment.postgres.pool import Pool
from catchment.postgres.unchanged import pulse
from catchment.targets.base import Pace
from catchment.targets.ods.locked import Locked, in_the_way
from catchment.targets.ods.meddling import Meddling, standing, stop_altered
from catchment.targets.ods.naming import Relation, live_relation
from catchment.targets.ods.refusal import Refusal, stop
from catchment.targets.ods.registry import FRONTIER, Registry, read_frontier
from catchment.targets.ods.session import Session
from catchment.targets.ods.transaction import Transaction

_LOOK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Look:
    """What the server showed ``at`` a moment of the monotonic clock: its pulse, and how each source's tables stand."""

    at: float
    pulse: str
    standing: Mapping[str, str]


class OdsTarget:
    """A target that many threads may use, each for its own source; ``datasets`` says where a source's rows land."""

    scope: Literal["source"] = "source"

    def __init__(
        self,
        dsn: str,
        datasets: Mapping[str, str],
        name: str = "ods",
        most_connections: int = 4,
        pace: Pace = Pace(0, 64 << 20),  # noqa: B008 -- a frozen value
    ) -> None:
        self.name = name
        self.pace = pace
        self._dsn = dsn
        self._datasets = datasets
        self._sessions = Pool[Session](most_connections)
        self._meddling: dict[str, Meddling] = {}
        self._looking = threading.Lock()
        self._look: _Look | None = None
        self._concerned: dict[str, float] = {}
        self._out_of_date: dict[str, tuple[str | None, Mapping[str, str | None]]] = {}
        self._reached: dict[str, Frontier | None] = {}
        self._refused = defaultdict[str, set[tuple[int, str | None]]](set)

    def frontier(self, source: str) -> Frontier | None:
        """Read from ``catchment.frontier``. Raises TargetUnreachable, TargetRefused."""
        translation = of_target(source)
        with translation.around(), self._lend(translation) as session:
            frontier = read_frontier(session.connection.execute(FRONTIER, (source,)))
        self._went_back(source, frontier)
        return frontier

    def apply(self, source: str, batches: Iterable[tuple[Frontier, Batch]], durable: bool = True) -> None:
        """All in one transaction, but for one thing: what comes before a table appears is committed first.

        Raises TargetUnreachable, TargetRefused; nothing is half done then. Raises TableRefused when one table does not
        take its changes: that one has stopped then, and the same batches go in without it. Raises TargetWentBack when
        the ODS has less than was committed here since its frontier was last asked for.
        """
        translation = of_target(source)
        with translation.around():
            try:
                with self._lend(translation) as session:
                    dataset, refused = self._datasets[source], self._refused[source]
                    transaction = Transaction(session, source, dataset, translation, durable, refused)
                    begun_at = transaction.position
                    if self._went_back(source, begun_at):
                        raise TargetWentBack("the ODS has lost what it had last taken in", source=source)
                    for frontier, batch in batches:
                        transaction.take(frontier, batch)
                    if durable and transaction.position == begun_at:
                        transaction.settle()
                    else:
                        transaction.commit()
                    self._reached[source] = transaction.position
            except Refusal as refusal:
                raise self._stopped(translation, source, refusal) from None
            finally:
                self._concerned[source] = time.monotonic()

    def tend(self, source: str, seconds: float) -> bool:
        """There is nothing to do."""
        return False

    def out_of_date(self, source: str) -> Mapping[str, str | None]:
        """Those that have stopped, and those that somebody dropped. Raises TargetUnreachable, TargetRefused.

        A table that somebody altered stops by being found here, if no change has met it yet. While nothing of this
        source is another, what was found last is found again.
        """
        translation = of_target(source)
        with translation.around():
            standing_now = self._looked_at(source, translation).standing.get(source)
            standing_then, tables = self._out_of_date.get(source, ("", {}))
            if standing_then != standing_now:
                with self._lend(translation) as session:
                    session.begin(source)
                    stop_altered(session, source, self._meddling.setdefault(source, Meddling(source)))
                    tables = Registry(session, source).out_of_date()
                    session.commit(source, None)
                self._out_of_date[source] = standing_now, tables
            return tables

    def _looked_at(self, source: str, translation: Translation) -> _Look:
        """What was seen of the server since this source last asked, or was written to: one look does for many sources.

        While nothing at all is written to the server, all stands as it did.
        """
        with self._looking:
            look, now = self._look, time.monotonic()
            if look is None or look.at <= self._concerned.get(source, 0.0) or now - look.at > _LOOK_SECONDS:
                with self._lend(translation) as session:
                    seen = pulse(session.connection, translation)
                    same = look is not None and look.pulse == seen
                    stands = look.standing if look and same else standing(session.connection, self._datasets)
                self._look = look = _Look(now, seen, stands)
            self._concerned[source] = now
            return look

    def forget(self, source: str) -> None:
        """Drop the source's tables, its schemas if nothing else is in them, and all records of it.

        Raises TargetUnreachable, and TargetRefused when something, such as a view, depends on a table.
        """
        translation = of_target(source)
        self._reached.pop(source, None)
        with translation.around(), self._lend(translation) as session:
            session.begin(source)
            registry = Registry(session, source)
            stored = [one for entry in registry.all() for one in (entry.live, entry.shadow) if one]
            schemas = {live_relation(source, self._datasets[source], one.shape).schema for one in stored}
            if stored:
                _drop(session.connection, [one.relation for one in stored])
            for schema in sorted(schemas):
                _drop_if_empty(session.connection, schema)
            registry.forget()
            session.connection.execute("COMMIT")

    def _went_back(self, source: str, frontier: Frontier | None) -> bool:
        """Whether the ODS, which stands at ``frontier``, has lost what was committed here."""
        reached = self._reached.get(source)
        if reached is None or (frontier is not None and (frontier.covers(reached) or frontier.log != reached.log)):
            return False
        del self._reached[source]
        self._refused.pop(source, None)  # that these tables have stopped may be lost too
        return True

    def _stopped(self, translation: Translation, source: str, refusal: Refusal) -> TableRefused:
        # A refill that is told from its beginning once more must leave the table out.
        self._refused[source].add((refusal.place.table.oid, refusal.place.refill))
        with self._lend(translation) as session:
            session.begin(source)
            error = stop(session.connection, Registry(session, source), source, refusal)
            session.commit(source, None)
        return error

    def close(self) -> None:
        """Close the connections, those in use when they are done."""
        self._sessions.close()

    @contextlib.contextmanager
    def _lend(self, translation: Translation) -> Iterator[Session]:
        """Raises TargetUnreachable when somebody has a lock in the ODS for longer than it is waited for."""
        with self._sessions.lend(translation.source, lambda: Session.open(self._dsn, translation)) as session:
            try:
                yield session
            except psycopg.errors.LockNotAvailable:
                raise in_the_way(self._dsn, translation, session.pid, Locked()) from None
            except Locked as locked:
                raise in_the_way(self._dsn, translation, session.pid, locked) from None


def _drop(connection: psycopg.Connection, tables: Sequence[Relation]) -> None:
    try:
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.SQL(", ").join(table.identifier for table in tables)))
    except psycopg.errors.LockNotAvailable:
        raise Locked(tables, dropping=True) from None


def _drop_if_empty(connection: psycopg.Connection, schema: str) -> None:
    try:
        with connection.transaction():
            connection.execute(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(schema)))
    except psycopg.errors.DependentObjectsStillExist:
        return  # people keep things of their own there
