"""The current state of one table: changed rows are marked deleted, their new versions appended, in one Delta commit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from catchment.changes.bag import coalesce_bag
from catchment.changes.cast import Typed, typed
from catchment.changes.coalesce import coalesce
from catchment.changes.columns import Rows, take
from catchment.changes.run import rows_leaving_out
from catchment.model.batch import META, UNCHANGED
from catchment.model.errors import TargetRefused
from catchment.model.table import Table
from catchment.targets.lake import datafile, deleted, delta
from catchment.targets.lake.columns import (
    EXACT,
    LakeColumn,
    current_columns,
    delta_schema,
    has_field,
    known_columns,
    types_of,
)
from catchment.targets.lake.delta import Change, DataFile, Snapshot
from catchment.targets.lake.folding import due
from catchment.targets.lake.index import Alive, KeyIndex
from catchment.targets.lake.keys import Hashes, hashes
from catchment.targets.lake.left_out import Left, told_before
from catchment.targets.lake.local import LocalStore
from catchment.targets.lake.naming import index_path
from catchment.targets.lake.store import Store
from catchment.targets.lake.vectors import Vectors

SHAPE = "catchment.table"
"""The property of a Delta table that says which version of the source's table it is."""

_SOURCE, _FILLED, _DROPPED = "catchment.source", "catchment.filled", "catchment.dropped"
_TYPES = "catchment.types"

Positions = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _New:
    """Rows to append, and what they are found by."""

    rows: pa.Table
    hashes: Hashes


class CurrentTable:
    """A table as its latest version is; ``cache`` has its index."""

    def __init__(self, store: Store, cache: LocalStore, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.shape = Table.from_json(json.loads(snapshot.configuration[SHAPE]))
        self._store = store
        self._cache = cache
        self._directory = index_path(snapshot.configuration[_SOURCE], snapshot.path)
        self._index: KeyIndex | None = None
        self._vectors = Vectors(store, snapshot.path)

    @classmethod
    def create(
        cls, store: Store, cache: LocalStore, path: str, source: str, shape: Table, chosen: Mapping[str, str]
    ) -> CurrentTable:
        """A new one without rows; some types were ``chosen``. Raises TargetUnreachable when there is one already."""
        schema = delta_schema([], current_columns(shape, types_of(chosen)), exact=False)
        configuration = {**_configuration(source, shape), _TYPES: json.dumps(chosen)}
        return cls(store, cache, delta.create(store, path, schema, configuration, Change()))

    @classmethod
    def open(cls, store: Store, cache: LocalStore, path: str, source: str) -> CurrentTable | None:
        """The one that is there. Raises TargetRefused when it was not made for this source."""
        snapshot = delta.read_snapshot(store, path)
        if snapshot is None:
            return None
        if snapshot.configuration.get(_SOURCE) != source or SHAPE not in snapshot.configuration:
            raise TargetRefused(
                f"{store.location(path)} is already there and was not made by Catchment for this source",
                source=source,
                remedy="move it away",
            )
        return cls(store, cache, snapshot)

    def apply(self, shape: Table, changes: Sequence[pa.RecordBatch], positions: Positions) -> None:
        """Take in changes of this version of the table, in order. Raises TargetRefused when rows are missing."""
        if shape.key:
            self._apply_keyed(shape, changes, positions)
        else:
            self._apply_bag(shape, changes, positions)

    def empty(self) -> None:
        """Remove all rows."""
        if self.snapshot.files:
            index = self._ready_index()
            self._commit(Change(removed=list(self.snapshot.files.values())))
            index.save(self.snapshot.version, self.snapshot.files)

    def reshape(self, shape: Table, positions: Positions) -> bool:
        """Become this version of the table by new metadata alone; false when that is not possible.

        A column that comes back under the name of one that was dropped would show the old one's values.
        """
        old, new = self._by_number(self.shape), self._by_number(shape)
        dropped = {*json.loads(self.snapshot.configuration.get(_DROPPED, "[]"))}
        dropped |= {old[number].name for number in old.keys() - new.keys()}
        added = {new[number].name for number in new.keys() - old.keys()}
        same_key = _key_numbers(shape) == _key_numbers(self.shape)
        stay = all(old[number] == new[number] for number in old.keys() & new.keys())
        # What older rows have in a new column is not in any file.
        filled = any(column.missing is not None for column in shape.columns if column.number not in old)
        if not (stay and same_key) or added & dropped or filled:
            return False
        if old != new:
            exact = has_field(self.snapshot.schema, EXACT)
            told = {SHAPE: json.dumps(shape.to_json()), _DROPPED: json.dumps(sorted(dropped))}
            schema = delta_schema([], self._columns(shape), exact)
            index = self._ready_index()
            configuration = {**self.snapshot.configuration, **told}
            self._commit(Change(schema=schema, configuration=configuration, positions=positions))
            self.shape = shape
            if index.table == self._identity:
                index.save(self.snapshot.version, self.snapshot.files)
            else:
                self._index = None
        return True

    def take_over(self, shadow: CurrentTable, refill: str, positions: Positions) -> None:
        """Have the shadow's rows, and no others, from one version to the next. The shadow is not to be used again.

        Of all shadows made of one ``refill``, after crashes or by two that write, only the first is taken over:
        vacuum counts on it that a record is never ahead of it.
        """
        if self.snapshot.configuration.get(_FILLED) == refill:
            self._cache.remove(shadow._directory)
            return
        prefix = shadow.snapshot.path.removeprefix(f"{self.snapshot.path}/") + "/"
        vectors = {
            prefix + file.path: shadow._vectors.of(file) for file in shadow.snapshot.files.values() if file.deleted
        }
        stored = self._vectors.write(vectors, self.snapshot.version + 1)
        files = [
            replace(file, path=prefix + file.path, deleted=stored.get(prefix + file.path))
            for file in shadow.snapshot.files.values()
        ]
        configuration = {**shadow.snapshot.configuration, _FILLED: refill}
        self._commit(
            Change(list(self.snapshot.files.values()), files, shadow.snapshot.schema, configuration, positions)
        )
        self.shape = shadow.shape
        index = shadow._ready_index().renamed(self._identity, prefix)
        index.save(self.snapshot.version, self.snapshot.files)
        self._cache.rename(shadow._directory, self._directory)
        self._index = None

    def tidy(self) -> bool:
        """Fold files, or merge what the index is made of, if that is due; whether it was. No row changes."""
        if chosen := due(self.snapshot.files.values()):
            self._fold(chosen)
            return True
        return self._index is not None and self._index.merge(self._alive(self._index))

    def _fold(self, chosen: Sequence[DataFile]) -> None:
        """Write these anew as one, without what is deleted."""
        index = self._ready_index()
        columns = known_columns(self.snapshot.schema)
        names = [*(column.name for column in columns), EXACT]
        found = []

        def parts() -> Iterator[pa.Table]:
            for file in chosen:
                rows = datafile.read(self._store, f"{self.snapshot.path}/{file.path}", names)
                rows = rows.filter(pa.array(deleted.kept(self._vectors.of(file), file.rows)))
                found.append(hashes([datafile.typed_in(rows, column) for column in self._found_by], index.seed))
                yield datafile.table_of(columns, [datafile.typed_in(rows, column) for column in columns])

        name = datafile.new_name(self.snapshot.version + 1)
        content = datafile.content_of(datafile.schema_of(columns, has_field(self.snapshot.schema, EXACT)), parts())
        own = np.concatenate(found)
        if len(own):
            self._store.write({f"{self.snapshot.path}/{name}": content})
        added = [DataFile(name, content.size, len(own))] if len(own) else []
        self._commit(Change(chosen, added, rearranged=True))
        index.add(name, own, np.arange(len(own)))
        index.save(self.snapshot.version, self.snapshot.files)

    def _apply_keyed(self, shape: Table, changes: Sequence[pa.RecordBatch], positions: Positions) -> None:
        net = coalesce(shape, changes)
        columns = self._columns(shape)
        key = [columns[position] for position in shape.key_positions]
        values = _typed(columns, net.rows.columns[len(META) :])
        gone = _typed(key, net.gone)
        moved = np.flatnonzero(np.asarray(net.origin[0].is_valid()))
        origin = _typed(key, [take(column, moved) for column in net.origin])

        index = self._ready_index()
        own = hashes([values[position] for position in shape.key_positions], index.seed)
        wanted = np.concatenate([hashes(gone, index.seed), hashes(origin, index.seed), own])
        which, files, rows = self._find(wanted)

        incomplete = np.flatnonzero(np.asarray(net.rows.column(UNCHANGED).is_valid()))
        if len(incomplete):
            known_as = len(gone[0].values) + len(moved) + np.arange(len(own))
            known_as[moved] = len(gone[0].values) + np.arange(len(moved))
            found = np.full(len(wanted), -1, dtype=np.int64)
            found[which] = np.arange(len(which))
            place = found[known_as]
            stays = np.ones(len(own), dtype=np.bool_)
            stays[incomplete] = place[incomplete] >= 0
            left_out = rows_leaving_out(net.rows.column(UNCHANGED))
            paths = {number: f"{self.snapshot.path}/{file}" for number, file in index.files.items()}
            values = told_before(self._store, paths, columns, values, Left(left_out, place, files, rows))
            values = [datafile.spread(value, np.flatnonzero(stays)) for value in values]
            own = own[stays]
        new = _New(datafile.table_of(columns, values), own)
        self._replace(files, rows, new, positions)

    def _apply_bag(self, shape: Table, changes: Sequence[pa.RecordBatch], positions: Positions) -> None:
        """Rows are the same when all their values are."""
        net = coalesce_bag(shape, changes)
        columns = self._columns(shape)
        index = self._ready_index()
        files = rows = np.zeros(0, dtype=np.int64)
        if net.removed.num_rows:
            wanted = hashes(_typed(columns, net.removed.columns), index.seed)
            copies = net.copies.to_numpy()
            which, files, rows = self._find(wanted)
            order = np.argsort(which, kind="stable")
            which, files, rows = which[order], files[order], rows[order]
            nth = np.arange(len(which)) - np.searchsorted(which, which)
            goes = nth < copies[which]
            files, rows = files[goes], rows[goes]
            if len(rows) < copies.sum():
                source = self.snapshot.configuration[_SOURCE]
                raise TargetRefused(
                    f"{self.snapshot.path} in the lake lacks rows that were deleted at the source",
                    source=source,
                    table=str(shape),
                    remedy=f"refill it: `catchment backfill {source} {shape}`",
                )
        values = _typed(columns, net.added.columns)
        new = _New(datafile.table_of(columns, values), hashes(values, index.seed))
        self._replace(files, rows, new, positions)

    def _find(self, wanted: Hashes) -> tuple[Rows, Rows, Rows]:
        """The rows in the table that have these hashes: which hash, number of the file, position in it."""
        index = self._ready_index()
        which, files, rows = index.find(wanted)
        alive = self._alive(index)(files, rows)
        return which[alive], files[alive], rows[alive]

    def _replace(self, files: Rows, rows: Rows, new: _New, positions: Positions) -> None:
        """Mark rows deleted and append others: the next version of the table."""
        index = self._ready_index()
        vectors: dict[str, deleted.Bits] = {}
        removed = []
        for number, of in _by_file(files, rows):
            file = self.snapshot.files[index.files[number]]
            bits = deleted.mark(self._vectors.of(file), of)
            removed.append(file)
            if deleted.count(bits) < file.rows:
                vectors[file.path] = bits
        stored = self._vectors.write(vectors, self.snapshot.version + 1)
        added = [replace(file, deleted=stored[file.path]) for file in removed if file.path in stored]
        schema = None
        if new.rows.num_rows:
            name, content = datafile.new_name(self.snapshot.version + 1), datafile.content(new.rows)
            self._store.write({f"{self.snapshot.path}/{name}": content})
            added.append(DataFile(name, content.size, new.rows.num_rows))
            if EXACT in new.rows.column_names and not has_field(self.snapshot.schema, EXACT):
                schema = delta_schema([], known_columns(self.snapshot.schema), exact=True)
        if not (added or removed):
            return
        self._commit(Change(removed, added, schema, positions=positions))
        if new.rows.num_rows:
            index.add(name, new.hashes, np.arange(new.rows.num_rows))
        index.save(self.snapshot.version, self.snapshot.files)

    def _commit(self, change: Change) -> None:
        self.snapshot = delta.commit(self._store, self.snapshot, change)
        self._vectors.keep(self.snapshot.files.values())

    def _alive(self, index: KeyIndex) -> Alive:
        return self._vectors.alive(index, self.snapshot)

    def _ready_index(self) -> KeyIndex:
        """The index of this very version: where it is of another one, rows that it does not know are looked up."""
        if self._index is None:
            index = KeyIndex.open(self._cache, self._directory, self._identity)
            if index.version > self.snapshot.version:
                self._cache.remove(self._directory)
                index = KeyIndex.open(self._cache, self._directory, self._identity)
            if index.version != self.snapshot.version:
                self._catch_up(index)
            self._index = index
        return self._index

    @property
    def _found_by(self) -> list[LakeColumn]:
        """The columns that rows are found by: those of the key, or all."""
        columns = self._columns(self.shape)
        return [columns[position] for position in self.shape.key_positions] if self.shape.key else columns

    @property
    def _identity(self) -> str:
        """Of the index: another one is needed when rows are found by other columns."""
        return json.dumps([self.snapshot.id, *(column.name for column in self._found_by)])

    def _catch_up(self, index: KeyIndex) -> None:
        columns = self._found_by
        names = [*(column.name for column in columns), EXACT]
        for file in self.snapshot.files.values():
            if index.number(file.path) is None:
                rows = datafile.read(self._store, f"{self.snapshot.path}/{file.path}", names)
                found = hashes([datafile.typed_in(rows, column) for column in columns], index.seed)
                kept = np.flatnonzero(deleted.kept(self._vectors.of(file), file.rows))
                index.add(file.path, found[kept], kept)
        index.save(self.snapshot.version, self.snapshot.files)

    def _columns(self, shape: Table) -> list[LakeColumn]:
        return current_columns(shape, types_of(json.loads(self.snapshot.configuration.get(_TYPES, "{}"))))

    def _by_number(self, shape: Table) -> dict[int, LakeColumn]:
        return {column.number: lake for column, lake in zip(shape.columns, self._columns(shape), strict=True)}


def _configuration(source: str, shape: Table) -> dict[str, str]:
    return {"delta.enableDeletionVectors": "true", _SOURCE: source, SHAPE: json.dumps(shape.to_json())}


def _key_numbers(shape: Table) -> list[int]:
    return [shape.columns[position].number for position in shape.key_positions]


def _typed(columns: Sequence[LakeColumn], texts: Sequence[pa.Array[Any]]) -> list[Typed]:
    return [typed(text, lake.type) for lake, text in zip(columns, texts, strict=True)]


def _by_file(files: Rows, rows: Rows) -> list[tuple[int, Rows]]:
    order = np.argsort(files, kind="stable")
    numbers, begins = np.unique(files[order], return_index=True)
    return list(zip(numbers.tolist(), np.split(rows[order], begins[1:]), strict=True)) if len(files) else []
