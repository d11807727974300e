"""One transaction in the ODS: batches in, rows and frontier out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

import psycopg
import pyarrow as pa
from psycopg import sql

from catchment.changes.order import in_order
from catchment.model.batch import (
    Batch,
    Event,
    Message,
    RefillFinished,
    RefillStarted,
    SchemaChanged,
    TableRows,
    Truncated,
)
from catchment.model.errors import TableMisshapen
from catchment.model.frontier import Frontier
from catchment.model.table import Table
from catchment.postgres.connection import Translation
from catchment.targets.ods import late_key, reshape, shapes
from catchment.targets.ods.apply import append_rows, apply_changes
from catchment.targets.ods.beginning import begin_shadow
from catchment.targets.ods.changeover import change_over, lets_tables_appear, wait_for_old_snapshots
from catchment.targets.ods.naming import Relation
from catchment.targets.ods.refusal import Place, refusals
from catchment.targets.ods.registry import Entry, Registry, Stored
from catchment.targets.ods.script import Script
from catchment.targets.ods.session import MOST_STAGINGS, Session

_MOST_ROWS = 1 << 16
_MOST_BYTES = 16 << 20
_MOST_TABLES = MOST_STAGINGS // 2  # each may have a shadow beside the live one, and a script needs all their stagings


@dataclass(slots=True)
class _Held:
    """Rows of one version of a table that wait to be applied together."""

    table: Table
    rows: list[TableRows] = field(default_factory=list)


class Transaction:
    """What one ``apply`` does to the ODS: nothing is visible before a commit, which is at the end of a transaction.

    Rows are held until some 64k rows, 16 MB or 100 tables have come, or an event: memory stays bounded however large a
    source's transaction is. ``durable``: its commits wait for the disk, and all that was committed before is on it then
    too. ``refused``: tables that a refill cannot bring, by oid and refill.
    """

    def __init__(
        self,
        session: Session,
        source: str,
        dataset: str,
        translation: Translation,
        durable: bool,
        refused: Collection[tuple[int, str | None]],
    ) -> None:
        self._session = session
        self._source = source
        self._dataset = dataset
        self._translation = translation
        self._durable = durable
        self._refused = refused
        self._held: dict[int, _Held] = {}
        self._held_rows = 0
        self._held_bytes = 0
        self._position: Frontier | None = None
        self._begun_at: Frontier | None = None
        self._between = True
        self._changed: dict[Relation, Place] = {}
        self._begin()

    @property
    def position(self) -> Frontier | None:
        """How far the ODS has got, with what was taken in up to now."""
        return self._position

    def take(self, frontier: Frontier, batch: Batch) -> None:
        """Take in a batch, unless the ODS has it already."""
        if self._has(frontier):
            return
        self._add_keys(batch)
        if self._lets_tables_appear(batch.events):
            self.commit()
            wait_for_old_snapshots(self._connection, self._source)
            self._begin()
        if self._has(frontier):
            return
        if self._position is None or not self._position.precedes(frontier):
            self._lose_track()
        for event in batch.events:
            self._happen(event)
        for rows in batch.rows:
            self._hold(rows)
        self._position, self._between = frontier, batch.ends_transaction
        if batch.ends_transaction and any(isinstance(event, SchemaChanged | RefillFinished) for event in batch.events):
            # Readers of what has just changed its shape wait for us, and we have to wait for those of the next one.
            self.commit()
            self._begin()

    def commit(self) -> None:
        """Commit all that was taken, together with the frontier."""
        self._flush()
        try:
            self._session.commit(self._source, self._position if self._position != self._begun_at else None)
        except psycopg.Error as error:
            place = self._changed.get(Relation(error.diag.schema_name or "", error.diag.table_name or ""))
            if place is None:
                raise
            with refusals(place, self._translation):  # a deferred constraint
                raise

    def settle(self) -> None:
        """A commit that writes the frontier in any case: only one that has written something waits for the disk."""
        self._session.commit(self._source, self._position)

    @property
    def _connection(self) -> psycopg.Connection:
        return self._session.connection

    def _begin(self) -> None:
        self._begun_at = self._position = self._session.begin(self._source, self._durable)
        self._registry = Registry(self._session, self._source)

    def _has(self, frontier: Frontier) -> bool:
        return self._position is not None and self._position.covers(frontier)

    def _lose_track(self) -> None:
        """Changes are missing: tables stay as they are until a refill, and what a refill has begun is void."""
        self._flush()
        self._registry.outdate()
        for entry in self._registry.all():
            if entry.shadow:
                shapes.drop(self._connection, entry.shadow.relation)

    def _add_keys(self, batch: Batch) -> None:
        """Give shadows the keys by which this batch finds rows, or with which it lets them appear.

        Each in a transaction of its own, if the source's allows it, since it may take long: nothing is locked
        meanwhile, what fails later does not undo it, and snapshots that see repeated rows are waited for.
        """
        changed = {rows.table.oid for rows in batch.rows if rows.refill is None}
        changed |= {event.table.oid for event in batch.events if isinstance(event, SchemaChanged)}
        entries = {entry.oid: entry for entry in self._registry.entries(changed)}
        for event in batch.events:
            if isinstance(event, RefillFinished):
                entries |= {entry.oid: entry for entry in self._registry.refilled(event.refill)}
        for entry in entries.values():
            if entry.shadow and entry.shadow.lacks_key:
                self._flush()
                removed = self._add_key(entry, entry.shadow)
                if self._between:
                    if removed:  # whoever saw them there is waited for: the frontier's row says so
                        self.settle()
                    else:
                        self.commit()
                    self._begin()

    def _add_key(self, entry: Entry, shadow: Stored) -> bool:
        place = Place(shadow.shape, shadow.relation, entry.refill)
        removed = late_key.add_key(self._connection, self._source, place, self._translation)
        self._registry.changed(entry.oid)
        return removed

    def _lets_tables_appear(self, events: Iterable[Event]) -> bool:
        return any(
            lets_tables_appear(self._connection, self._registry.refilled(event.refill))
            for event in events
            if isinstance(event, RefillFinished)
        )

    def _happen(self, event: Event) -> None:
        if isinstance(event, Message):
            return
        self._flush()
        match event:
            case SchemaChanged(table):
                with self._translation.around(str(table)):
                    self._reshape(table)
            case Truncated(tables):
                for table in tables:
                    self._empty(self._registry.entry(table.oid), table)
            case RefillStarted(refill, tables):
                for table in tables:
                    if (table.oid, refill) in self._refused:
                        continue
                    with self._translation.around(str(table)):
                        begin_shadow(self._connection, self._registry, self._source, self._dataset, refill, table)
            case RefillFinished(refill):
                entries = self._registry.refilled(refill)
                for entry in entries:
                    if entry.live:
                        place = Place(entry.live.shape, entry.live.relation, refill)
                        self._changed[entry.live.relation] = place
                change_over(self._connection, self._registry, self._source, self._dataset, entries, self._translation)

    def _reshape(self, table: Table) -> None:
        connection = self._connection
        entry = self._registry.entry(table.oid)
        if entry.live is None and entry.shadow is None:
            if entry.taken and str(entry.taken.shape) == str(table):
                self._stop_if_away(entry, table)  # with the shape that its own has, wherever that is
            else:
                self._registry.reshaped(table.oid, table)
            return
        try:
            entry = reshape.move(connection, self._registry, self._source, self._dataset, entry, table)
            if entry.live and entry.current:
                entry = replace(entry, live=reshape.follow(connection, self._source, entry.live, table))
        except TableMisshapen as error:
            entry = entry.stopped_by(error)
        if entry.shadow:
            reshape.adapt(connection, entry.shadow.relation, entry.shadow.shape, table)
            entry = replace(entry, shadow=replace(entry.shadow, shape=table))
        self._registry.save(entry)

    def _empty(self, entry: Entry, table: Table) -> None:
        for stored in filter(None, (self._taking_changes(entry, table), entry.shadow)):
            # TRUNCATE would empty the table for older snapshots too.
            with refusals(Place(stored.shape, stored.relation), self._translation):
                self._connection.execute(sql.SQL("DELETE FROM {}").format(stored.relation.identifier))

    def _hold(self, rows: TableRows) -> None:
        held = self._held.setdefault(rows.table.oid, _Held(rows.table))
        if held.table != rows.table:
            self._flush()
            held = self._held.setdefault(rows.table.oid, _Held(rows.table))
        held.rows.append(rows)
        self._held_rows += rows.data.num_rows
        self._held_bytes += rows.data.nbytes
        if self._held_rows >= _MOST_ROWS or self._held_bytes >= _MOST_BYTES or len(self._held) >= _MOST_TABLES:
            self._flush()

    def _flush(self) -> None:
        """Hand over what is held. While that is done more is read, and made ready to be handed over."""
        script = Script(self._session, self._translation)
        for entry, held in zip(self._registry.entries(self._held), self._held.values(), strict=True):
            with self._translation.around(str(held.table)):
                self._apply(script, entry, held.table, held.rows)
        script.run()
        self._held = {}
        self._held_rows = self._held_bytes = 0

    def _apply(self, script: Script, entry: Entry, table: Table, rows: Sequence[TableRows]) -> None:
        """What came out of the stream goes to the live table and the shadow, a refill's rows to its shadow alone."""
        streamed = [one.data for one in rows if one.refill is None]
        if streamed and (live := self._taking_changes(entry, table)):
            try:
                self._apply_to(script, live, Place(table, live.relation), streamed)
            except TableMisshapen as error:
                self._registry.save(entry.stopped_by(error))
        if shadow := entry.shadow:
            if streamed and shadow.lacks_key:  # it was begun by the batch that brings these
                self._add_key(entry, shadow)
                shadow = self._registry.entry(entry.oid).shadow or shadow
            told = [one.data for one in rows if one.refill in (None, entry.refill)]
            self._build_up(script, shadow, Place(table, shadow.relation, entry.refill), told)

    def _build_up(self, script: Script, shadow: Stored, place: Place, rows: list[pa.RecordBatch]) -> None:
        """While it has no key there are no changes: rows of its refill are put one behind the other."""
        if shadow.lacks_key:
            staging = self._session.staging(place.relation, shadow.stamp, place.table)
            append_rows(script.about(place), staging, place.table, rows, self._source)
        else:
            self._apply_to(script, shadow, place, rows)

    def _taking_changes(self, entry: Entry, table: Table) -> Stored | None:
        """What readers see of the table, if it takes changes."""
        self._stop_if_away(entry, table)
        return entry.live if entry.current else None

    def _stop_if_away(self, entry: Entry, table: Table) -> None:
        """What should take changes, and is not where it was, misses some now."""
        if entry.current and not entry.live:
            swapped = entry.taken and shapes.swapped(self._source, entry.taken.relation, table)
            self._registry.stop(entry.oid, str(swapped or shapes.away(self._source, table)))

    def _apply_to(self, script: Script, stored: Stored, place: Place, changes: list[pa.RecordBatch]) -> None:
        self._changed[place.relation] = place
        staging = self._session.staging(place.relation, stored.stamp, place.table)
        with refusals(place, self._translation):
            filling = place.refill is not None
            apply_changes(script.about(place), staging, place.table, in_order(changes), self._source, filling)
