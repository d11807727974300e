"""The history of one table: every change, in order, appended and never touched again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from catchment.changes.cast import Typed, typed
from catchment.changes.columns import concatenate
from catchment.model.batch import COMMITTED_AT, LSN, META, OP, SEQ, UNCHANGED, XID, Place
from catchment.model.errors import TargetRefused
from catchment.model.table import Table
from catchment.targets.lake import datafile, delta
from catchment.targets.lake.columns import (
    DAY,
    EXACT,
    HISTORY_FIELDS,
    LakeColumn,
    Types,
    delta_schema,
    has_field,
    history_columns,
    known_columns,
)
from catchment.targets.lake.delta import Change, DataFile, Snapshot
from catchment.targets.lake.folding import due
from catchment.targets.lake.store import Store

_SOURCE = "catchment.source"
_FIELDS = [*HISTORY_FIELDS, pa.field(DAY, pa.date32())]


class HistoryTable:
    """A table as its latest version is."""

    def __init__(self, store: Store, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._store = store

    @classmethod
    def opened(cls, store: Store, path: str, source: str, shape: Table, types: Types) -> HistoryTable:
        """The one that is there, or a new one. Raises TargetRefused when it was not made for this source."""
        if delta.read_snapshot(store, path) is None:
            schema = delta_schema(_FIELDS, history_columns(shape, [], types), exact=False)
            configuration = {"delta.appendOnly": "true", _SOURCE: source}
            snapshot = delta.create(store, path, schema, configuration, Change(), (DAY,), deletion_vectors=False)
            return cls(store, snapshot)
        return cls.reopened(store, path, source)

    @classmethod
    def reopened(cls, store: Store, path: str, source: str) -> HistoryTable:
        """The one that is there. Raises TargetRefused when there is none, or it was not made for this source."""
        snapshot = delta.read_snapshot(store, path)
        if snapshot is None:
            raise TargetRefused(f"{store.location(path)} is gone", source=source, remedy="put it back")
        if snapshot.configuration.get(_SOURCE) != source:
            raise TargetRefused(
                f"{store.location(path)} is already there and was not made by Catchment for this source",
                source=source,
                remedy="move it away",
            )
        return cls(store, snapshot)

    def append(
        self, shape: Table, types: Types, changes: Sequence[pa.RecordBatch], positions: Mapping[str, int]
    ) -> None:
        """Changes of one version of the table, in order."""
        known = known_columns(self.snapshot.schema)
        columns = history_columns(shape, known, types)
        whole = [concatenate([change.column(field) for change in changes]) for field in range(changes[0].num_columns)]
        values = [typed(texts, lake.type) for texts, lake in zip(whole[len(META) :], columns, strict=True)]
        rows = _rows(shape, whole, columns, values)
        all_columns = [*known, *(column for column in columns if column not in known)]
        exact = EXACT in rows.column_names or has_field(self.snapshot.schema, EXACT)
        schema = delta_schema(_FIELDS, all_columns, exact)
        files = self._write(rows, pc.cast(whole[COMMITTED_AT], pa.date32()))
        changed = None if schema == self.snapshot.schema else schema
        self.snapshot = delta.commit(
            self._store, self.snapshot, Change(added=files, schema=changed, positions=positions)
        )

    def tidy(self) -> bool:
        """Write some files of one day anew as one, if that is due; whether it was. No row changes."""
        days = {file.partition[DAY] for file in self.snapshot.files.values()}
        for day in days:
            chosen = due(file for file in self.snapshot.files.values() if file.partition[DAY] == day)
            if chosen:
                self._fold(chosen, day)
                return True
        return False

    def _fold(self, chosen: Sequence[DataFile], day: str | None) -> None:
        paths = [f"{self.snapshot.path}/{file.path}" for file in chosen]
        begins = [datafile.read_rows(self._store, path, ["_seq"], np.zeros(1, np.int64)) for path in paths]
        order = sorted(range(len(paths)), key=lambda place: begins[place].column(0)[0].as_py())
        exact = has_field(self.snapshot.schema, EXACT)
        schema = datafile.schema_of(known_columns(self.snapshot.schema), exact, HISTORY_FIELDS)
        content = datafile.content_of(schema, (datafile.read(self._store, paths[place]) for place in order))
        name = datafile.new_name(self.snapshot.version + 1, f"{DAY}={day}")
        self._store.write({f"{self.snapshot.path}/{name}": content})
        whole = DataFile(name, content.size, sum(file.rows for file in chosen), {DAY: day})
        self.snapshot = delta.commit(self._store, self.snapshot, Change(chosen, [whole], rearranged=True))

    def _write(self, rows: pa.Table, days: Any) -> list[DataFile]:
        files, contents = [], {}
        for day in pc.unique(days):
            content = datafile.content(rows.filter(pc.equal(days, day)))
            name = datafile.new_name(self.snapshot.version + 1, f"{DAY}={day}")
            contents[f"{self.snapshot.path}/{name}"] = content
            count = pc.sum(pc.equal(days, day)).as_py() or 0
            files.append(DataFile(name, content.size, count, {DAY: str(day)}))
        self._store.write(contents)
        return files


def truncated(shape: Table, place: Place) -> pa.RecordBatch:
    """A row that says that the table was emptied, laid out as ``TableRows.data``."""
    meta = {OP: "t", SEQ: place.seq, LSN: int(place.lsn), XID: place.xid, COMMITTED_AT: place.committed_at}
    fields = [*META, *(pa.field(column.name, pa.string()) for column in shape.columns)]
    arrays = [pa.array([meta.get(position)], field.type) for position, field in enumerate(fields)]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _rows(
    shape: Table, whole: Sequence[pa.Array[Any]], columns: Sequence[LakeColumn], values: Sequence[Typed]
) -> pa.Table:
    told = datafile.table_of(columns, values)
    meta = [
        whole[OP],
        whole[SEQ],
        whole[LSN],
        whole[XID],
        whole[COMMITTED_AT],
        _names(shape, columns, whole[UNCHANGED]),
    ]
    return pa.table([*meta, *told.columns], names=[*(field.name for field in HISTORY_FIELDS), *told.column_names])


def _names(shape: Table, columns: Sequence[LakeColumn], unchanged: Any) -> pa.Array[Any]:
    """The names in the lake of columns whose values were not sent."""
    names = pa.array([column.name for column in columns])
    flat = names.take(pc.fill_null(unchanged.flatten(), 0)) if len(unchanged.flatten()) else pa.array([], pa.string())
    lists: Any = pa.ListArray
    sizes = np.asarray(pc.list_value_length(unchanged).fill_null(0), dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    made: pa.Array[Any] = lists.from_arrays(offsets, flat, mask=unchanged.is_null())
    return made
