"""Where the rows of a current-state table are: a cache on local disk that can be made again from the table.

Runs, sorted by hash, are written once and merged when they have become many. An entry is only a hint: the row may have
been deleted since, or its file removed; who asks has to look. But every row that is in the table has an entry.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from catchment.changes.columns import Rows, Truths
from catchment.targets.lake.keys import Hashes
from catchment.targets.lake.local import LocalStore

_FORMAT = 1
_MANIFEST = "manifest.json"
_GROWTH = 4
_LARGE = 1 << 20
_MOST_RUNS = 16
_ROWS_AT_ONCE = 1 << 20

Alive = Callable[[Rows, Rows], Truths]
"""Whether the rows at these places, numbers of files and positions in them, are in the table."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Entries in a file: all first halves of the hashes, all second halves, all places, eight bytes each."""

    name: str
    entries: int


class KeyIndex:
    """Of one version of one table. ``files``: the table's files that it covers, by their numbers."""

    def __init__(self, cache: LocalStore, directory: str, table: str, seed: tuple[int, int]) -> None:
        self.table = table
        self.seed = seed
        self.version = -1
        self.files: list[str] = []
        self._cache = cache
        self._directory = directory
        self._runs: list[_Run] = []
        self._numbers: dict[str, int] = {}

    @classmethod
    def open(cls, cache: LocalStore, directory: str, table: str) -> Self:
        """What is there for the table with this id; an empty one when it is another's, or does not read back.

        This and all other methods raise TargetUnreachable and TargetRefused.
        """
        content = cache.read(f"{directory}/{_MANIFEST}")
        try:
            told = json.loads(content or b"{}")
            if told["format"] == _FORMAT and told["table"] == table:
                index = cls(cache, directory, table, (told["seed"][0], told["seed"][1]))
                index.version = told["version"]
                index._know(told["files"])
                index._runs = [_Run(name, entries) for name, entries in told["runs"]]
                index._tidy()
                if all(cache.size(f"{directory}/{run.name}") == 24 * run.entries for run in index._runs):
                    return index
        except (ValueError, KeyError, TypeError, IndexError):
            pass  # a cache: it is made again
        return cls(cache, directory, table, (secrets.randbits(64), secrets.randbits(64)))

    def renamed(self, table: str, prefix: str) -> KeyIndex:
        """The same rows, in a table that has the files under this prefix."""
        other = KeyIndex(self._cache, self._directory, table, self.seed)
        other._know([prefix + file for file in self.files])
        other._runs = list(self._runs)
        return other

    def number(self, file: str) -> int | None:
        """Of a file that is covered."""
        return self._numbers.get(file)

    def find(self, hashes: Hashes) -> tuple[Rows, Rows, Rows]:
        """All entries with one of these hashes: which hash, the file's number and the position in it."""
        order = np.argsort(hashes[:, 0])
        first, second = hashes[order, 0], hashes[order, 1]
        found: list[tuple[Rows, npt.NDArray[np.uint64]]] = []
        for run in self._runs:
            entries = self._open(run)
            left = np.searchsorted(entries[0], first)
            candidate = np.flatnonzero(left < run.entries)
            candidate = candidate[entries[0][left[candidate]] == first[candidate]]
            if len(candidate):
                place = left[candidate]
                width = np.searchsorted(entries[0], first[candidate], side="right") - place
                which = np.repeat(candidate, width)
                steps = np.arange(len(which)) - np.repeat(np.cumsum(width) - width, width)
                place = np.repeat(place, width) + steps
                same = entries[1][place] == second[which]
                found.append((order[which[same]], entries[2][place[same]]))
        which = np.concatenate([np.zeros(0, np.int64), *(each for each, _ in found)])
        places = np.concatenate([np.zeros(0, np.uint64), *(each for _, each in found)])
        return which, (places >> np.uint64(32)).astype(np.int64), (places & np.uint64(0xFFFFFFFF)).astype(np.int64)

    def add(self, file: str, hashes: Hashes, rows: Rows) -> None:
        """Cover these rows of a file; it counts from the next ``save`` on."""
        self._know([file])
        if not len(rows):
            return
        order = np.argsort(hashes[:, 0], kind="stable")
        places = rows.astype(np.uint64) | np.uint64(self._numbers[file] << 32)
        entries = np.stack([hashes[order, 0], hashes[order, 1], places[order]])
        self._runs.append(self._write([entries], len(order)))

    def save(self, version: int, alive: Alive) -> None:
        """From here on this is the index of that version. Runs are merged where that is due, without what is gone."""
        old = {run.name for run in self._runs}
        merging, total = 1, self._runs[-1].entries if self._runs else 0
        while merging < len(self._runs) and self._is_worth_merging(self._runs[-merging - 1].entries, total):
            merging += 1
            total += self._runs[-merging].entries
        if merging > 1:
            self._runs[-merging:] = self._merged(self._runs[-merging:], alive)
        self.version = version
        told = {
            "format": _FORMAT,
            "table": self.table,
            "seed": self.seed,
            "version": version,
            "files": self.files,
            "runs": [(run.name, run.entries) for run in self._runs],
        }
        self._cache.replace(f"{self._directory}/{_MANIFEST}", json.dumps(told).encode())
        kept = {run.name for run in self._runs}
        self._cache.remove(*(f"{self._directory}/{name}" for name in old - kept))

    def _is_worth_merging(self, earlier: int, total: int) -> bool:
        """Large runs are left alone for longer: to look into one more costs less than the pause."""
        many = len(self._runs) > _MOST_RUNS
        return many or (earlier < _GROWTH * total and earlier + total <= _LARGE)

    def _know(self, files: Sequence[str]) -> None:
        for file in files:
            if file not in self._numbers:
                self._numbers[file] = len(self.files)
                self.files.append(file)

    def _merged(self, runs: Sequence[_Run], alive: Alive) -> list[_Run]:
        """Slice by slice of the hashes, so that memory does not grow with the table."""
        opened = [self._open(run) for run in runs]
        total = sum(run.entries for run in runs)
        slices = -(-total // _ROWS_AT_ONCE)
        bounds = [np.uint64((number << 64) // slices) for number in range(slices)]
        cuts = [[*np.searchsorted(entries[0], bounds).tolist(), entries.shape[1]] for entries in opened]
        parts = []
        for number in range(slices):
            taken = [
                np.array(entries[:, cut[number] : cut[number + 1]]) for entries, cut in zip(opened, cuts, strict=True)
            ]
            entries = np.concatenate(taken, axis=1)
            places = entries[2]
            stays = alive((places >> np.uint64(32)).astype(np.int64), (places & np.uint64(0xFFFFFFFF)).astype(np.int64))
            entries = entries[:, stays]
            parts.append(entries[:, np.argsort(entries[0], kind="stable")])
        left = sum(part.shape[1] for part in parts)
        return [self._write(parts, left)] if left else []

    def _tidy(self) -> None:
        """A crash may have left runs that nothing names."""
        kept = {_MANIFEST, *(run.name for run in self._runs)}
        left = [name for name in self._cache.names(self._directory) if name not in kept]
        self._cache.remove(*(f"{self._directory}/{name}" for name in left))

    def _open(self, run: _Run) -> npt.NDArray[np.uint64]:
        """Mapped for as long as it is used: what is mapped counts as the process's memory."""
        return self._cache.map(f"{self._directory}/{run.name}", 3, run.entries)

    def _write(self, parts: Sequence[npt.NDArray[np.uint64]], entries: int) -> _Run:
        """Durable before a manifest names it: a run with holes would hide rows."""
        run = _Run(f"{uuid4().hex}.run", entries)
        content: Any = np.concatenate([part[row] for row in range(3) for part in parts])
        self._cache.write({f"{self._directory}/{run.name}": memoryview(content).cast("B")})
        return run
