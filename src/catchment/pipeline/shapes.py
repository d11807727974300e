"""Which shape each table has at the place of the stream that is being read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from catchment.log.base import State
from catchment.model.batch import Event, SchemaChanged, TableRows
from catchment.model.errors import TableLocked, TableStopped
from catchment.model.table import Table
from catchment.pipeline.state import KEPT, TABLE, KnownTable
from catchment.postgres.catalog import PublishedTable
from catchment.wire.messages import Relation

Published = Mapping[int, PublishedTable]


class Shapes:
    """Follows Relation messages, with the catalog for what they do not say.

    A Relation states the shape at its place in the stream, the catalog the shape of now: the catalog is believed only
    where the two agree. Where they do not, the table's changes are left out until a refill has read it as it is.
    """

    def __init__(
        self, source: str, state: Mapping[str, bytes], look_up: Callable[[], Published], now: Callable[[], str]
    ) -> None:
        self._source = source
        self._look_up = look_up
        self._now = now
        self._saved: dict[str, bytes | None] = {}
        self._summary: list[dict[str, str | None]] | None = None
        self.known = KnownTable.of(state)
        self.unfilled = {oid for oid, known in self.known.items() if known.refill}
        """Tables whose rows have to be read (again) for all targets."""
        self.reading: int | None = None
        """The table that a backfill is reading, if any: what is not followed of it has to be kept all the same."""
        self.estimates: Mapping[int, int | None] = {}
        """About how many rows each published table has, where the planner knows."""
        self.emptied = False
        """Whether the table being read was truncated while it was not followed."""

    @property
    def unsaved(self) -> bool:
        """Whether there are changes to be handed out."""
        return bool(self._saved)

    def changes(self) -> State:
        """What has to be saved with the next batch; handed out once."""
        saved, self._saved = self._saved, {}
        return saved

    def summary(self) -> list[dict[str, str | None]]:
        """What ``status`` shows of the tables; made anew only when one has changed."""
        if self._summary is None:
            self._summary = [known.summary() for known in self.known.values()]
        return self._summary

    def trouble(self) -> str | None:
        """The sentence of the first table that has stopped."""
        return next((table["remedy"] for table in self.summary() if table["remedy"]), None)

    def read(self, oid: int | None) -> None:
        """A backfill begins to read this table, or has ended."""
        self.reading, self.emptied = oid, False

    def rows(self, relation: Relation, data: pa.RecordBatch) -> TableRows | None:
        """These rows as they go into the log; null when they are left out."""
        known = self.known.get(relation.oid)
        if known is None or known.relation != relation:
            return None
        if known.followed:
            return TableRows(known.table, data)
        return TableRows(known.table, data, KEPT) if relation.oid == self.reading else None

    def truncated(self, oids: Sequence[int]) -> tuple[Table, ...]:
        """Those of these tables that are followed."""
        known = [self.known[oid] for oid in oids if oid in self.known]
        self.emptied |= any(table.table.oid == self.reading and not table.followed for table in known)
        return tuple(table.table for table in known if table.followed)

    def differs(self, relation: Relation) -> bool:
        """Whether a Relation message says something that is not known yet."""
        known = self.known.get(relation.oid)
        return known is None or known.relation != relation

    def see(self, relation: Relation) -> tuple[Event, ...]:
        """Take in a Relation message; returns the event that it amounts to, if any."""
        known = self.known.get(relation.oid)
        try:
            published = self._look_up().get(relation.oid)
        except TableLocked:
            # Its shape cannot be asked for now. What is left out meanwhile is read later.
            if known is not None:
                self._keep(replace(known, followed=False, refill=True, floor=None))
            return ()
        if published is None:
            if known is not None:
                self.retire(relation.oid)
            return ()
        agreed = published.relation == relation
        if known is None:
            return self._begin(published, followed=agreed)
        table = replace(published.table, version=known.table.version + 1)
        if not agreed or not known.followed:
            refill = known.refill or known.followed or known.retired
            self._keep(replace(known, table=table, relation=published.relation, followed=False, refill=refill))
            return ()
        if obstacle := _obstacle(known.table, table):
            self._stop(known, table, relation, obstacle)
            return ()
        added = {column.number for column in table.columns} - {column.number for column in known.table.columns}
        # Rows that were there before have the new column's default, which no message tells.
        self._keep(replace(known, table=table, relation=relation, refill=known.refill or bool(added)))
        return (SchemaChanged(table),)

    def _begin(self, published: PublishedTable, followed: bool) -> tuple[Event, ...]:
        """A table that is new here. Its changes from before it was published are nowhere in the stream."""
        known = KnownTable(published.table, published.relation, followed, refill=True, floor=self._now())
        self._keep(known)
        return (SchemaChanged(known.table),) if followed else ()

    def adopt(self, published: PublishedTable, for_all: bool) -> Table:
        """Take the catalog's shape for the one to follow: the rows were read in it, for all targets or for some."""
        known = self.known[published.table.oid]
        table = known.table
        if known.relation != published.relation:
            table = replace(published.table, version=known.table.version + 1)
        if for_all:
            self._keep(KnownTable(table, published.relation))
        # Else the others still have to be told of a new shape, which the stream does when it comes to it.
        return table

    def expect(self, published: Published) -> None:
        """The tables of a log that begins here: a backfill of all tables is to come anyway."""
        self.estimates = {oid: table.estimated_rows for oid, table in published.items()}
        for table in published.values():
            self._keep(KnownTable(table.table, table.relation))

    def notice(self, published: Published) -> None:
        """Compare with what is published now: what is new, or came back, has to be read; what is gone is retired."""
        self.estimates = {oid: table.estimated_rows for oid, table in published.items()}
        for oid, table in published.items():
            known = self.known.get(oid)
            if known is None:
                self._begin(table, followed=True)
            elif known.retired:
                self._keep(replace(known, refill=True, floor=self._now()))
        for oid in self.known.keys() - published.keys():
            if not self.known[oid].retired:
                self.retire(oid)

    def unreadable(self, oid: int, sentence: str) -> None:
        """Only a person can have its rows read again; what the stream brings of it goes on."""
        self._keep(replace(self.known[oid], refill=True, stopped=sentence))

    def retire(self, oid: int) -> None:
        """The publication no longer has this table: what the stream still holds of it is left out."""
        self._keep(replace(self.known[oid], followed=False, refill=False, stopped=None))

    def _stop(self, known: KnownTable, table: Table, relation: Relation, obstacle: str) -> None:
        error = TableStopped(
            obstacle,
            source=self._source,
            table=str(known.table),
            remedy=f"drop what the targets built from it, then run `catchment backfill {self._source} {table}`",
        )
        self._keep(
            replace(known, table=table, relation=relation, followed=False, refill=False, floor=None, stopped=str(error))
        )

    def _keep(self, known: KnownTable) -> None:
        self.known[known.table.oid] = known
        self._summary = None
        self._saved[f"{TABLE}{known.table.oid}"] = known.encode()
        (self.unfilled.add if known.refill else self.unfilled.discard)(known.table.oid)


def _obstacle(old: Table, new: Table) -> str | None:
    """Why the change from one shape to the other cannot be followed; null when it can."""
    if (old.schema, old.name) != (new.schema, new.name):
        return f"was renamed to {new}"
    types = {column.number: (column.type_schema, column.type_name, column.typmod) for column in old.columns}
    for column in new.columns:
        if types.get(column.number, now := (column.type_schema, column.type_name, column.typmod)) != now:
            return f"the type of its column {column.name} was changed"
    if _key_numbers(old) != _key_numbers(new):
        return "its replica identity or primary key was changed"
    return None


def _key_numbers(table: Table) -> tuple[int, ...]:
    return tuple(table.columns[position].number for position in table.key_positions)
