"""Which shape each table has at the place of the stream that is being read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from catchment.log.base import State
from catchment.model.batch import Event, SchemaChanged
from catchment.model.errors import TableStopped
from catchment.model.table import Table
from catchment.pipeline.state import TABLE, KnownTable
from catchment.postgres.catalog import PublishedTable
from catchment.wire.messages import Relation

Published = Mapping[int, PublishedTable]


class Shapes:
    """Follows Relation messages, with the catalog for what they do not say.

    A Relation states the shape at its place in the stream, the catalog the shape of now: the catalog is believed only
    where the two agree. Where they do not, the table's changes are left out until a refill has read it as it is.
    """

    def __init__(self, source: str, state: Mapping[str, bytes], look_up: Callable[[], Published]) -> None:
        self._source = source
        self._look_up = look_up
        self._saved: dict[str, bytes | None] = {}
        self.known = KnownTable.of(state)
        self.unfilled = {oid for oid, known in self.known.items() if known.refill}
        """Tables whose rows have to be read (again) for all targets."""

    def changes(self) -> State:
        """What has to be saved with the next batch; handed out once."""
        saved, self._saved = self._saved, {}
        return saved

    def followed(self, oid: int) -> Table | None:
        """The shape in which this table's rows go into the log; null while they are left out."""
        known = self.known.get(oid)
        return known.table if known and known.followed else None

    def see(self, relation: Relation) -> tuple[Event, ...]:
        """Take in a Relation message; returns the event that it amounts to, if any."""
        known = self.known.get(relation.oid)
        if known is not None and known.relation == relation:
            return ()
        published = self._look_up().get(relation.oid)
        if published is None:
            if known is not None:
                self.retire(relation.oid)
            return ()
        if published.relation != relation or known is None:
            return self._begin(published, agreed=published.relation == relation)
        table = replace(published.table, version=known.table.version + 1)
        if obstacle := _obstacle(known.table, table):
            self._stop(known, obstacle)
            return ()
        added = {column.number for column in table.columns} - {column.number for column in known.table.columns}
        # Rows that were there before have the new column's default, which no message tells.
        self._keep(replace(known, table=table, relation=relation, refill=known.refill or bool(added)))
        return (SchemaChanged(table),) if known.followed else ()

    def _begin(self, published: PublishedTable, agreed: bool) -> tuple[Event, ...]:
        known = self.known.get(published.table.oid)
        version = known.table.version + 1 if known else 1
        table = replace(published.table, version=version)
        self._keep(KnownTable(table, published.relation, followed=agreed, refill=True))
        return (SchemaChanged(table),) if agreed else ()

    def adopt(self, published: PublishedTable) -> Table:
        """Take the catalog's shape for the one to follow from here on, all rows having been read in it."""
        known = self.known.get(published.table.oid)
        if known is None or known.relation != published.relation:
            version = known.table.version + 1 if known else 1
            known = KnownTable(replace(published.table, version=version), published.relation)
        self._keep(replace(known, followed=True, refill=False, stopped=None))
        return known.table

    def expect(self, published: Published) -> None:
        """The tables of a log that begins here: a backfill of all tables is to come anyway."""
        for table in published.values():
            self._keep(KnownTable(table.table, table.relation))

    def retire(self, oid: int) -> None:
        """The publication no longer has this table: what the stream still holds of it is left out."""
        self._keep(replace(self.known[oid], followed=False, refill=False))

    def notice(self, published: Published) -> None:
        """Compare with what is published now: new tables, and such as came back, have to be read whole."""
        for oid, table in published.items():
            known = self.known.get(oid)
            if known is None:
                self._begin(table, agreed=True)
            elif not (known.followed or known.refill or known.stopped):
                self._keep(replace(known, refill=True))

    def _stop(self, known: KnownTable, obstacle: str) -> None:
        error = TableStopped(
            obstacle,
            source=self._source,
            table=str(known.table),
            remedy=f"drop what the targets built from it, then run `catchment backfill {self._source} {known.table}`",
        )
        self._keep(replace(known, followed=False, refill=False, stopped=str(error)))

    def _keep(self, known: KnownTable) -> None:
        self.known[known.table.oid] = known
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
