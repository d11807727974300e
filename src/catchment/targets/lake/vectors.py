"""The deletion vectors of one table, as far as they have been looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from catchment.changes.columns import Rows, Truths
from catchment.targets.lake import deleted
from catchment.targets.lake.delta import DataFile, Snapshot
from catchment.targets.lake.index import Alive, KeyIndex
from catchment.targets.lake.naming import stamped
from catchment.targets.lake.store import Store


class Vectors:
    """``path`` is the table's. Raises TargetUnreachable, TargetRefused."""

    def __init__(self, store: Store, path: str) -> None:
        self._store = store
        self._path = path
        self._known: dict[tuple[str, deleted.Stored], deleted.Bits] = {}

    def of(self, file: DataFile) -> deleted.Bits:
        """Which rows of the file are deleted."""
        if file.deleted is None:
            return deleted.none(file.rows)
        if (bits := self._known.get((file.path, file.deleted))) is None:
            content = self._store.read(f"{self._path}/{file.deleted.path}") or b""
            bits = self._known[file.path, file.deleted] = deleted.read(content, file.deleted, file.rows)
        return bits

    def write(self, vectors: Mapping[str, deleted.Bits], version: int) -> dict[str, deleted.Stored]:
        """Store new ones, by the paths of their files, in one file; they count when this version names them."""
        if not vectors:
            return {}
        path, content, stored = deleted.file_of(vectors, stamped(version))
        self._store.write({f"{self._path}/{path}": content})
        self._known.update(((name, stored[name]), bits) for name, bits in vectors.items())
        return stored

    def keep(self, files: Iterable[DataFile]) -> None:
        """Let go of those that these files do not have."""
        present = {(file.path, file.deleted) for file in files}
        self._known = {at: bits for at, bits in self._known.items() if at in present}

    def alive(self, index: KeyIndex, snapshot: Snapshot) -> Alive:
        """Whether rows at places that the index names are in this version of the table."""

        there = sorted((number, snapshot.files[file]) for number, file in index.files.items() if file in snapshot.files)
        numbers = np.array([number for number, _ in there], dtype=np.int64)
        vectors = [self.of(file) for _, file in there]
        bits = np.concatenate([*vectors, np.zeros(1, np.uint8)])
        begins = 8 * np.cumsum([0, *map(len, vectors)])

        def alive(files: Rows, rows: Rows) -> Truths:
            at = np.searchsorted(numbers, files)
            known: Truths = np.append(numbers, -1)[at] == files
            stays: Truths = ~deleted.marked(bits, np.where(known, begins[at] + rows, 0))
            return known & stays

        return alive
