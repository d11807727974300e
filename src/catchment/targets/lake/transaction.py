"""What one ``apply`` does to the lake: batches in, versions of tables and then the record out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from catchment.changes.order import in_order
from catchment.model.batch import (
    SEQ,
    Batch,
    Event,
    Message,
    RefillFinished,
    RefillStarted,
    SchemaChanged,
    TableRows,
    Truncated,
)
from catchment.model.frontier import Frontier
from catchment.model.table import Table
from catchment.targets.lake.history import truncated
from catchment.targets.lake.lake import SourceLake
from catchment.targets.lake.naming import current_path, history_path, shadow_path
from catchment.targets.lake.record import Entry

_MOST_ROWS = 1 << 19
_MOST_BYTES = 64 << 20


@dataclass(slots=True)
class _Held:
    """Rows of one version of a table that wait to be written together, each with the offset of its batch."""

    table: Table
    rows: list[tuple[int, TableRows]] = field(default_factory=list)
    history_only: list[tuple[int, pa.RecordBatch]] = field(default_factory=list)

    @property
    def offset(self) -> int:
        """Of the last batch that is in it."""
        return max(offset for offset, _ in (*self.rows, *self.history_only))


class Transaction:
    """Nothing counts before ``commit``.

    A table that is further than the record, because of a crash, is not told again what it has: each of its versions
    says up to which offset it goes. Rows are held until some 512k rows or 64 MB have come, or an event.
    """

    def __init__(self, lake: SourceLake, dataset: str) -> None:
        self._lake = lake
        self._dataset = dataset
        self._begun_at = self._position = lake.refresh()
        self._entries = dict(lake.record.entries)
        self._seq = lake.record.seq
        self._held: dict[int, _Held] = {}
        self._held_rows = self._held_bytes = 0

    def take(self, frontier: Frontier, batch: Batch) -> None:
        """Take in a batch, unless the lake has it already."""
        if self._position is not None and self._position.covers(frontier):
            return
        if self._position is None or not self._position.precedes(frontier):
            self._lose_track()
        self._position = frontier
        for event in batch.events:
            self._happen(event, frontier.offset)
        for rows in batch.rows:
            self._hold(rows, frontier.offset)
        if self._held_rows >= _MOST_ROWS or self._held_bytes >= _MOST_BYTES:
            self._flush()

    def commit(self) -> None:
        """Write what is held, and the record."""
        self._flush()
        if self._position is not None and self._position != self._begun_at:
            self._lake.commit(self._position, self._seq, self._entries.values(), self._name())

    def _name(self) -> str:
        """Under which a table's versions say how far they go."""
        log = self._position.log if self._position else None
        return f"catchment/{self._lake.source}/{log}"

    def _lose_track(self) -> None:
        """Changes are missing: tables stay as they are until a refill, and what a refill has begun is void."""
        self._flush()
        for entry in self._entries.values():
            self._entries[entry.oid] = replace(_without_shadow(entry), takes=False)

    def _happen(self, event: Event, offset: int) -> None:
        match event:
            case SchemaChanged(table):
                self._flush(table.oid)
                self._reshape(table, offset)
            case Truncated(tables, place):
                self._seq = max(self._seq, place.seq)
                for table in tables:
                    self._flush(table.oid)
                    held = self._held.setdefault(table.oid, _Held(table))
                    held.history_only.append((offset, truncated(table, place)))
                    self._empty(self._entry(table), offset)
            case RefillStarted(refill, tables):
                for table in tables:
                    self._flush(table.oid)
                    self._begin_shadow(refill, table)
            case RefillFinished(refill):
                for entry in list(self._entries.values()):
                    if entry.refill == refill and entry.shadow is not None:
                        self._flush(entry.oid)
                        self._change_over(self._entries[entry.oid], entry.shadow, offset)
            case Message():
                pass

    def _entry(self, table: Table) -> Entry:
        known = self._entries.get(table.oid)
        return known or Entry(table.oid, table.schema, table.name, current_path(self._dataset, table))

    def _reshape(self, table: Table, offset: int) -> None:
        """What metadata alone cannot do is done by a refill."""
        entry = self._entry(table)
        if entry.takes and not self._takes_shape(entry.path, table, offset):
            entry = replace(entry, takes=False, waits=True)
        if entry.shadow is not None and not self._takes_shape(entry.shadow, table, offset):
            entry = _without_shadow(entry)
        if table.oid in self._entries:
            self._entries[table.oid] = entry

    def _takes_shape(self, path: str, table: Table, offset: int) -> bool:
        if not path.startswith(current_path(self._dataset, table)):
            return False  # it has another name now
        # The batch may bring rows too: they stand behind the event, and are not in yet.
        positions = {self._name(): offset - 1}
        return not self._is_new_to(path, offset) or self._lake.current(path).reshape(table, positions)

    def _empty(self, entry: Entry, offset: int) -> None:
        for path in (entry.path if entry.takes else None, entry.shadow):
            if path is not None and self._is_new_to(path, offset):
                self._lake.current(path).empty()

    def _begin_shadow(self, refill: str, table: Table) -> None:
        entry = self._entry(table)
        path = current_path(self._dataset, table)
        shadow = shadow_path(path, self._lake.record.number + 1)
        self._lake.new_current(shadow, table)
        self._entries[table.oid] = replace(
            entry, waits=False, refill=refill, shadow=shadow, shadow_version=0, shadow_since=self._seq
        )

    def _change_over(self, entry: Entry, shadow_at: str, offset: int) -> None:
        """The shadow's rows become the table's from one version to the next."""
        shadow = self._lake.current(shadow_at)
        path = current_path(self._dataset, shadow.shape)
        live = self._lake.current_if_there(path) or self._lake.new_current(path, shadow.shape)
        # The batch may bring rows too: they stand behind the event, and are not in yet.
        live.take_over(shadow, f"{entry.refill} until {offset}", {self._name(): offset - 1})
        self._lake.let_go(shadow_at)
        for other in [other for other in self._entries.values() if other.path == path and other.oid != entry.oid]:
            del self._entries[other.oid]  # the source has dropped or renamed it
        shape = shadow.shape
        changed = _without_shadow(replace(entry, schema=shape.schema, name=shape.name, path=path, takes=True))
        self._entries[entry.oid] = replace(
            changed, version=live.snapshot.version, waits=False, since=entry.shadow_since
        )

    def _hold(self, rows: TableRows, offset: int) -> None:
        if not rows.data.num_rows:
            return
        oid = rows.table.oid
        if oid in self._held and self._held[oid].table != rows.table:
            self._flush(oid)
        self._held.setdefault(oid, _Held(rows.table)).rows.append((offset, rows))
        self._held_rows += rows.data.num_rows
        self._held_bytes += rows.data.nbytes
        self._seq = max(self._seq, pc.max(rows.data.column(SEQ)).as_py())

    def _flush(self, oid: int | None = None) -> None:
        """Write what is held of one table, or of all."""
        for each in [oid] if oid is not None else list(self._held):
            if (held := self._held.pop(each, None)) is not None:
                self._write(held)
        if oid is None:
            self._held_rows = self._held_bytes = 0

    def _write(self, held: _Held) -> None:
        """What came out of the stream goes to the live table and the shadow, a refill's rows to its shadow alone."""
        entry = self._entry(held.table)
        self._entries[entry.oid] = entry
        self._append(entry, held)
        streamed = [(offset, rows.data) for offset, rows in held.rows if rows.refill is None]
        if entry.takes:
            self._apply(entry.path, held, streamed)
        if entry.shadow is not None:
            told = [(offset, rows.data) for offset, rows in held.rows if rows.refill in (None, entry.refill)]
            self._apply(entry.shadow, held, told)

    def _append(self, entry: Entry, held: _Held) -> None:
        path = history_path(current_path(self._dataset, held.table))
        history = self._lake.history(path, held.table)
        reached = history.snapshot.positions.get(self._name(), -1)
        rows = [(offset, rows.data) for offset, rows in held.rows if rows.refill in (None, entry.refill)]
        new = [data for offset, data in (*held.history_only, *rows) if offset > reached]
        if new:
            history.append(held.table, self._lake.types_of(held.table), in_order(new), {self._name(): held.offset})

    def _apply(self, path: str, held: _Held, changes: Sequence[tuple[int, pa.RecordBatch]]) -> None:
        new = [data for offset, data in changes if self._is_new_to(path, offset)]
        if new:
            self._lake.current(path).apply(held.table, in_order(new), {self._name(): held.offset})

    def _is_new_to(self, path: str, offset: int) -> bool:
        return self._lake.current(path).snapshot.positions.get(self._name(), -1) < offset


def _without_shadow(entry: Entry) -> Entry:
    return replace(entry, refill=None, shadow=None, shadow_version=None, shadow_since=0)
