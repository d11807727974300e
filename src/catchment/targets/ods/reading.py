"""Looking at what the ODS has of a source, to compare it with the source's own rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NoReturn, Self

from psycopg import sql

from catchment.model.errors import CatchmentError, TargetRefused
from catchment.model.frontier import Frontier
from catchment.model.table import Table
from catchment.postgres.comparing import SNAPSHOT, ComparedTable, begun, key_columns
from catchment.postgres.connection import connect, of_target
from catchment.targets.ods import shapes
from catchment.targets.ods.registry import FRONTIER, Entry, Registry, Stored, prepare, read_frontier
from catchment.targets.ods.session import Session


class OdsReader:
    """One connection that reads in short snapshots. Raises TargetUnreachable, TargetRefused."""

    name = "ods"

    def __init__(self, dsn: str, source: str) -> None:
        self._source = source
        self._translation = of_target(source)
        self._compared: dict[tuple[str, Table], ComparedTable] = {}
        self._connection = connect(dsn, self._translation)
        try:
            with self._translation.around():
                self._connection.execute("SET max_parallel_workers_per_gather = 0")
                self._prepare()
        except CatchmentError:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        if self._connection.execute("SELECT to_regclass('catchment.tables')").fetchone() == (None,):
            raise TargetRefused(
                "nothing was ever delivered to the ODS",
                target=self.name,
                source=self._source,
                remedy="start the hub with `catchment run`",
            )
        prepare(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def frontier(self) -> Frontier | None:
        """How far the ODS has got by now."""
        with self._translation.around():
            return read_frontier(self._connection.execute(FRONTIER, (self._source,)))

    @contextlib.contextmanager
    def snapshot(self, table: Table) -> Iterator[tuple[Frontier, ComparedTable]]:
        """A snapshot for the block: how far it is, and the rows that readers see of this table.

        Raises TargetRefused, with the sentence of why, when they are not what the source's are at that place.
        """
        with self._translation.around(str(table)), begun(self._connection, SNAPSHOT):
            frontier = read_frontier(self._connection.execute(FRONTIER, (self._source,)))
            entry = Registry(Session(self._connection), self._source).entry(table.oid)
            yield frontier or self._refuse(table, *_UNKNOWN), self._table(table, self._live(table, entry))

    def _live(self, table: Table, entry: Entry) -> Stored:
        if entry.stopped:
            raise TargetRefused(entry.stopped)
        if entry.taken:
            raise TargetRefused(str(shapes.swapped(self._source, entry.taken.relation, table)))
        if entry.shadow or (entry.live and not entry.current):
            self._refuse(table, "is being read again", "verify it when that is done; `catchment status` shows it")
        if entry.live is None:
            self._refuse(table, *_UNKNOWN)
        if _names(entry.live.shape) != _names(table):
            self._refuse(table, "has another shape in the ODS than in the source", "verify it again in a moment")
        return entry.live

    def _table(self, table: Table, live: Stored) -> ComparedTable:
        known = self._compared.get((live.stamp, table))
        if known is None:
            names = [column.name for column in table.columns]
            key = key_columns(self._connection, int(live.oid), table.key)
            relation = sql.SQL("ONLY {}").format(live.relation.identifier)
            known = ComparedTable(self._connection, self._translation, str(table), relation, names, key)
            self._compared = {(live.stamp, table): known}
        if len(known.key) != len(table.key):
            self._refuse(table, "lacks columns of its key in the ODS", "drop it there: it is then made and read again")
        return known

    def _refuse(self, table: Table, what: str, remedy: str) -> NoReturn:
        raise TargetRefused(what, target=self.name, source=self._source, table=str(table), remedy=remedy)


_UNKNOWN = (
    "is not in the ODS yet",
    "start the hub with `catchment run`, or wait until `catchment status` shows it streaming",
)


def _names(table: Table) -> dict[int, str]:
    return {column.number: column.name for column in table.columns}
