"""Where the rows of a current-state table are: a cache on local disk that can be made again from the table.

Runs, in the order of their hashes, are written once and merged later, piece by piece. An entry is only a hint: the row
may have been deleted since, or its file removed; who asks has to look. But every row that is in the table has an entry.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from itertools import chain
from typing import Any, Self
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from catchment.changes.columns import Rows, Truths
from catchment.targets.lake.keys import Hashes
from catchment.targets.lake.local import LocalStore

_FORMAT = 2
_MANIFEST = "manifest.json"
_GROWTH = 2
_AT_ONCE = 1 << 20

Alive = Callable[[Rows, Rows], Truths]
"""Whether the rows at these places, numbers of files and positions in them, are in the table."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Entries in a file: all first halves of the hashes, all second halves, all places, eight bytes each.

    The first ones, before ``start``, are in other runs by now.
    """

    name: str
    entries: int
    start: int = 0

    @property
    def left(self) -> int:
        return self.entries - self.start


_Level = list[_Run]
"""Runs that follow each other in the order of hashes."""


class KeyIndex:
    """Of one version of one table. ``files``: the table's files that it covers, by their numbers."""

    def __init__(self, cache: LocalStore, directory: str, table: str, seed: tuple[int, int]) -> None:
        self.table = table
        self.seed = seed
        self.version = -1
        self.files: dict[int, str] = {}
        self._cache = cache
        self._directory = directory
        self._numbers: dict[str, int] = {}
        self._next = 0
        self._levels: list[_Level] = []
        self._merging = range(0)
        self._merged: _Level = []

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
                index._next = told["next"]
                index._know({int(number): file for number, file in told["files"].items()})
                index._levels = [[_Run(*run) for run in level] for level in told["levels"]]
                index._merging = range(*told["merging"])
                index._merged = [_Run(*run) for run in told["merged"]]
                index._tidy()
                if all(cache.size(f"{directory}/{run.name}") == 24 * run.entries for run in index._runs):
                    return index
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            pass  # a cache: it is made again
        return cls(cache, directory, table, (secrets.randbits(64), secrets.randbits(64)))

    def renamed(self, table: str, prefix: str) -> KeyIndex:
        """The same rows, in a table that has the files under this prefix."""
        other = KeyIndex(self._cache, self._directory, table, self.seed)
        other._know({number: prefix + file for number, file in self.files.items()})
        other._next = self._next
        other._levels, other._merging, other._merged = self._levels, self._merging, self._merged
        return other

    def number(self, file: str) -> int | None:
        """Of a file that is covered."""
        return self._numbers.get(file)

    def find(self, hashes: Hashes) -> tuple[Rows, Rows, Rows]:
        """All entries with one of these hashes: which hash, the file's number and the position in it."""
        order = np.argsort(hashes[:, 0])
        first, second = hashes[order, 0], hashes[order, 1]
        found = [_found(self._open(run), first, second) for run in self._runs]
        which = np.concatenate([np.zeros(0, np.int64), *(order[each] for each, _ in found)])
        places = np.concatenate([np.zeros(0, np.uint64), *(each for _, each in found)])
        return which, *_divided(places)

    def add(self, file: str, hashes: Hashes, rows: Rows) -> None:
        """Cover these rows of a file; it counts from the next ``save`` on."""
        number = self._next
        self._next += 1
        self._know({number: file})
        if len(rows):
            order = np.argsort(hashes[:, 0], kind="stable")
            places = rows.astype(np.uint64) | np.uint64(number << 32)
            self._levels.append([self._write(np.stack([hashes[order, 0], hashes[order, 1], places[order]]))])

    def save(self, version: int, files: Container[str]) -> None:
        """From here on this is the index of that version, which has these files."""
        kept = {number: file for number, file in self.files.items() if file in files}
        self.files, self._numbers = {}, {}
        self._know(kept)
        self.version = version
        self._save()

    def merge(self, alive: Alive) -> bool:
        """Merge some runs, or a piece of them, without what is gone, if that is due; whether it was.

        A level is at least twice as large as the one behind it: there are few, and entries are seldom written again.
        """
        begin = self._first_to_merge()
        several = len(self._levels) - begin > 1
        if several and _size(self._levels[begin:]) <= _AT_ONCE:
            merged = self._merged_piece(range(begin, len(self._levels)), alive)
            self._levels[begin:] = [merged] if merged else []
        elif several or self._merging:
            self._merging = self._merging or range(begin, len(self._levels))
            self._merged += self._merged_piece(self._merging, alive)
            if not _size(self._levels[self._merging.start : self._merging.stop]):
                self._levels[self._merging.start : self._merging.stop] = [self._merged] if self._merged else []
                self._merging, self._merged = range(0), []
        else:
            return False
        self._save()
        self._tidy()
        return True

    def _first_to_merge(self) -> int:
        """Of the levels behind those that are being merged, where those begin that belong together."""
        most = _AT_ONCE if self._merging else sys.maxsize
        begin, total = len(self._levels), 0
        while begin > self._merging.stop:
            earlier = _size([self._levels[begin - 1]])
            if total and (earlier >= _GROWTH * total or earlier + total > most):
                break
            begin, total = begin - 1, total + earlier
        return begin

    def _merged_piece(self, levels: range, alive: Alive) -> _Level:
        """The next entries of all these levels, in the order of hashes, as a run: taken out of the levels."""
        opened = [(number, run, self._open(run)) for number in levels for run in self._levels[number]]
        first = min(int(entries[0][0]) for _, _, entries in opened)
        left = sum(run.left for _, run, _ in opened)
        bound = first + ((1 << 64) - first) * _AT_ONCE // left
        taken = []
        for number in levels:
            self._levels[number] = []
        for number, run, entries in opened:
            cut = run.left if bound >= 1 << 64 else int(np.searchsorted(entries[0], np.uint64(bound), side="right"))
            taken.append(np.array(entries[:, :cut]))
            if cut < run.left:
                self._levels[number].append(replace(run, start=run.start + cut))
        merged = np.concatenate(taken, axis=1)
        merged = merged[:, alive(*_divided(merged[2]))]
        return [self._write(merged[:, np.argsort(merged[0], kind="stable")])] if merged.shape[1] else []

    @property
    def _runs(self) -> Iterator[_Run]:
        return chain(self._merged, *self._levels)

    def _know(self, files: Mapping[int, str]) -> None:
        self.files.update(files)
        self._numbers.update((file, number) for number, file in files.items())

    def _save(self) -> None:
        told = {
            "format": _FORMAT,
            "table": self.table,
            "seed": self.seed,
            "version": self.version,
            "files": self.files,
            "next": self._next,
            "levels": [[astuple(run) for run in level] for level in self._levels],
            "merging": [self._merging.start, self._merging.stop],
            "merged": [astuple(run) for run in self._merged],
        }
        self._cache.replace(f"{self._directory}/{_MANIFEST}", json.dumps(told).encode())

    def _tidy(self) -> None:
        """Remove runs that have been merged, those that a crash left too."""
        kept = {_MANIFEST, *(run.name for run in self._runs)}
        left = [name for name in self._cache.names(self._directory) if name not in kept]
        self._cache.remove(*(f"{self._directory}/{name}" for name in left))

    def _open(self, run: _Run) -> npt.NDArray[np.uint64]:
        """Mapped for as long as it is used: what is mapped counts as the process's memory."""
        return self._cache.map(f"{self._directory}/{run.name}", 3, run.entries)[:, run.start :]

    def _write(self, entries: npt.NDArray[np.uint64]) -> _Run:
        """Durable before a manifest names it: a run with holes would hide rows."""
        run = _Run(f"{uuid4().hex}.run", entries.shape[1])
        content: Any = np.ascontiguousarray(entries)
        self._cache.write({f"{self._directory}/{run.name}": memoryview(content).cast("B")})
        return run


def _found(
    entries: npt.NDArray[np.uint64], first: npt.NDArray[np.uint64], second: npt.NDArray[np.uint64]
) -> tuple[Rows, npt.NDArray[np.uint64]]:
    """Which of the hashes, given in order by their halves, a run has, and the places that it has them at."""
    begin = int(np.searchsorted(first, entries[0][0]))
    end = int(np.searchsorted(first, entries[0][-1], side="right"))
    left = np.searchsorted(entries[0], first[begin:end])
    candidate = np.flatnonzero(entries[0][left] == first[begin:end])
    place = left[candidate]
    width = np.searchsorted(entries[0], first[begin + candidate], side="right") - place
    which = np.repeat(begin + candidate, width)
    steps = np.arange(len(which)) - np.repeat(np.cumsum(width) - width, width)
    place = np.repeat(place, width) + steps
    same = entries[1][place] == second[which]
    return which[same], entries[2][place[same]]


def _divided(places: npt.NDArray[np.uint64]) -> tuple[Rows, Rows]:
    """Numbers of files, and positions in them."""
    return (places >> np.uint64(32)).astype(np.int64), (places & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _size(levels: Iterable[_Level]) -> int:
    """In entries."""
    return sum(run.left for level in levels for run in level)
