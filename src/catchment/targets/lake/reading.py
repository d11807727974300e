"""Looking at what the lake has of a source, to compare it with the source's own rows.

Files of rows are read a piece at a time, and never change: the hashes of their rows are kept beside, eight bytes a row,
so that another version costs only what is new in it. Which rows of a file are in a version its deletion vector says.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from catchment.changes.columns import RowIndex, Rows, Truths, concatenate
from catchment.changes.digest import Buckets, Columns, Hashes, as_text, no_buckets, row_hashes
from catchment.changes.printed import as_held, is_trimmed, printed
from catchment.model.errors import TargetRefused, TargetUnreachable
from catchment.model.frontier import Frontier
from catchment.model.table import Table
from catchment.targets.lake import datafile, deleted, delta
from catchment.targets.lake.columns import EXACT, LakeColumn, known_columns
from catchment.targets.lake.current import SHAPE
from catchment.targets.lake.delta import ENGINE, LOG, DataFile, Snapshot
from catchment.targets.lake.record import Entry, Record, Records
from catchment.targets.lake.store import Store
from catchment.targets.lake.vectors import Vectors

_ROWS_AT_ONCE = 1 << 15
_UNKNOWN = (
    "is not in the lake yet",
    "start the hub with `catchment run`, or wait until `catchment status` shows it streaming",
)


class LakeReader:
    """Reads the tables at the versions that the last record names. Raises TargetUnreachable, TargetRefused."""

    name = "lake"

    def __init__(self, store: Store, source: str) -> None:
        self._store = store
        self._source = source
        self._records = Records(store, source)
        self._record: Record | None = None
        self._snapshot: Snapshot | None = None
        if self.frontier() is None:
            raise TargetRefused(
                "nothing was ever delivered to the lake",
                target=self.name,
                source=source,
                remedy="start the hub with `catchment run`",
            )
        self._scratch = TemporaryDirectory(prefix="catchment-")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.cleanup()

    def frontier(self) -> Frontier | None:
        """How far the lake has got by now."""
        self._record = self._records.latest(self._record)
        return self._record.frontier if self._record else None

    @contextlib.contextmanager
    def snapshot(self, table: Table) -> Iterator[tuple[Frontier, LakeRows]]:
        """How far the lake is, and the rows that readers see of this table who go through its last record.

        They stay what they are after the block, too. Raises TargetRefused, with the sentence of why, when they are not
        what the source's are at that place.
        """
        frontier = self.frontier() or self._refuse(table, *_UNKNOWN)
        entry = self._record.entries.get(table.oid) if self._record else None
        snapshot = self._live(table, entry or self._refuse(table, *_UNKNOWN))
        columns = {column.column: column for column in known_columns(snapshot.schema)}
        aligned = [columns[column.name] for column in table.columns]
        remedy = self._refill(table)
        yield frontier, LakeRows(self._store, snapshot, table, aligned, Path(self._scratch.name), remedy)

    def _live(self, table: Table, entry: Entry) -> Snapshot:
        if entry.shadow or (entry.version is not None and not entry.takes):
            self._refuse(table, "is being read again", "verify it when that is done; `catchment status` shows it")
        if entry.version is None:
            self._refuse(table, *_UNKNOWN)
        found, version = self._snapshot, self._visible(entry.path, entry.version)
        if found is None or (found.path, found.version) != (entry.path, version):
            found = delta.read_snapshot(self._store, entry.path, version)
            if found is None:
                self._refuse(table, f"is gone from {self._store.location(entry.path)}", self._refill(table))
            self._snapshot = found
        if _names(Table.from_json(json.loads(found.configuration[SHAPE]))) != _names(table):
            self._refuse(table, "has another shape in the lake than in the source", "verify it again in a moment")
        return found

    def _visible(self, path: str, version: int) -> int:
        """The version that the record names, and what others, who should not, have made of it since."""
        while (content := self._store.read(f"{path}/{LOG}/{version + 1:020}.json")) and not _is_ours(content):
            version += 1
        return version

    def _refill(self, table: Table) -> str:
        return f"refill it: `catchment backfill {self._source} {table}`"

    def _refuse(self, table: Table, what: str, remedy: str) -> NoReturn:
        raise TargetRefused(what, target=self.name, source=self._source, table=str(table), remedy=remedy)


class LakeRows:
    """The rows of one version of a current-state table, in no order; as much of a file at a time as fits in little.

    ``columns`` are aligned with the table's. What proves a row equal is that its values, and the texts in ``_exact``,
    print as the source printed them; but that the zeros at the end of a numeric that was given a decimal type of
    another scale are not known here, and not compared. ``remedy`` is that of a file that is gone or spoilt.
    """

    sorted = None

    def __init__(
        self,
        store: Store,
        snapshot: Snapshot,
        table: Table,
        columns: Sequence[LakeColumn],
        scratch: Path,
        remedy: str,
    ) -> None:
        self._store = store
        self._snapshot = snapshot
        self._table = table
        self._columns = columns
        self._scratch = scratch
        self._remedy = remedy
        self._vectors = Vectors(store, snapshot.path)

    @property
    def trimmed(self) -> frozenset[str]:
        """Columns whose type was chosen."""
        pairs = zip(self._columns, self._table.columns, strict=True)
        return frozenset(column.name for lake, column in pairs if is_trimmed(lake.type, column))

    def held(self, position: int, texts: pa.Array[Any]) -> pa.Array[Any]:
        """What becomes of these texts in the lake, printed."""
        return as_held(texts, self._table.columns[position], self._columns[position].type)

    def hashes(self) -> Iterator[Columns]:
        """The columns of the key, and the row's hash, of all rows."""
        for file in self._snapshot.files.values():
            known, alive = self._hashes(file), self._alive(file)
            for begin, keys in self._texts(file, self._table.key_positions):
                rows = slice(begin, begin + len(keys[0]))
                kept = pa.array(alive[rows])
                yield [*(column.filter(kept) for column in keys), as_text(known[rows][alive[rows]])]

    def buckets(self) -> Buckets:
        """Of all rows, each in the bucket that its hash says."""
        buckets = no_buckets()
        for file in self._snapshot.files.values():
            known = self._hashes(file)[self._alive(file)]
            buckets = buckets.changed(known, np.ones(len(known), dtype=np.int64))
        return buckets

    def rows(self, keys: Columns) -> Columns:
        """All rows with these keys."""
        wanted = RowIndex(keys)
        found: list[Columns] = []
        for file in self._snapshot.files.values():
            alive = self._alive(file)
            places = [
                begin + np.flatnonzero((wanted.find(texts) >= 0) & alive[begin : begin + len(texts[0])])
                for begin, texts in self._texts(file, self._table.key_positions)
            ]
            if len(rows := np.concatenate([np.zeros(0, np.int64), *places])):
                found.append(self._rows(file, rows))
        empty = pa.array([], pa.string())
        return [concatenate([empty, *(part[place] for part in found)]) for place in range(len(self._columns))]

    def _alive(self, file: DataFile) -> Truths:
        return deleted.kept(self._vectors.of(file), file.rows)

    def _hashes(self, file: DataFile) -> Hashes:
        """Of all rows of a file, the deleted ones among them."""
        name = json.dumps([self._snapshot.path, file.path, [column.name for column in self._columns]])
        place = self._scratch / hashlib.sha256(name.encode()).hexdigest()
        if not place.exists():
            every = range(len(self._columns))
            with place.with_suffix(".new").open("wb") as kept:
                for _, texts in self._texts(file, every):
                    row_hashes(texts).tofile(kept)
            place.with_suffix(".new").rename(place)
        return np.fromfile(place, dtype=np.uint64)

    def _texts(self, file: DataFile, positions: Sequence[int]) -> Iterator[tuple[int, Columns]]:
        """These columns of a file, some rows at a time; and the place of the first of them."""
        begin = 0
        with self._readable(file), self._store.open(self._path(file)) as opened:
            parquet = pq.ParquetFile(opened)
            if parquet.metadata.num_rows != file.rows:
                raise pa.ArrowInvalid("another number of rows")
            present = set(parquet.schema_arrow.names)
            names = [*(self._columns[position].name for position in positions), EXACT]
            for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=[name for name in names if name in present]):
                yield begin, self._printed(pa.Table.from_batches([batch]), positions)
                begin += batch.num_rows

    def _rows(self, file: DataFile, rows: Rows) -> Columns:
        names = [*(column.name for column in self._columns), EXACT]
        with self._readable(file):
            found = datafile.read_rows(self._store, self._path(file), names, rows)
            return self._printed(found, range(len(self._columns)))

    def _printed(self, rows: pa.Table, positions: Sequence[int]) -> Columns:
        return [
            printed(datafile.typed_in(rows, self._columns[position]), self._table.columns[position])
            for position in positions
        ]

    def _path(self, file: DataFile) -> str:
        return f"{self._snapshot.path}/{file.path}"

    @contextlib.contextmanager
    def _readable(self, file: DataFile) -> Iterator[None]:
        """Raises TargetRefused for a file that is gone, or is none of ours any more."""
        path = self._path(file)
        try:
            yield
        except TargetUnreachable as error:
            directory, _, name = path.rpartition("/")
            if name in self._store.names(directory):
                raise
            raise self._spoilt(path, "is gone") from error
        except (pa.ArrowException, OSError) as error:
            raise self._spoilt(path, "does not read back") from error

    def _spoilt(self, path: str, how: str) -> TargetRefused:
        return TargetRefused(f"{self._store.location(path)} {how}", table=str(self._table), remedy=self._remedy)


def _is_ours(commit: bytes) -> bool:
    actions = map(json.loads, commit.splitlines())
    return any(action.get("commitInfo", {}).get("engineInfo") == ENGINE for action in actions)


def _names(table: Table) -> dict[int, str]:
    return {column.number: column.name for column in table.columns}
