"""Vacuum: what neither a kept record nor a later one can name is removed.

A record is kept until another one has followed it for some time, the last one always. Versions only grow: what the
oldest kept record names of a table, and what was written for later versions, is all that any kept record can need.
Files say in their names for which version they were written, so that this one version is all that has to be read, and
no clock is trusted with what is needed. Records go first, and for good: what a crash leaves over is found again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Generator, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile

from catchment.model.errors import TargetRefused
from catchment.model.frontier import Frontier
from catchment.targets.lake.delta import LOG, Snapshot, logged, read_snapshot
from catchment.targets.lake.naming import SHADOW, history_path, index_path, stamp
from catchment.targets.lake.record import Record, Records
from catchment.targets.lake.store import Found, Store

_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 60.0, 3600.0
_GRACE = timedelta(days=1)
_AT_ONCE = 500
_RECORD = re.compile(r"[0-9]{20}\.json")


@dataclass(frozen=True, slots=True)
class _Kept:
    """The oldest version of a table that is needed, and the refills within its directory that are."""

    version: int
    shadows: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Needs:
    """What is needed below the directory of one table. ``record``: the number of the oldest one that is kept.

    ``begin``: the checkpoint that the oldest version needed is read from; ``newest``: the last version that there is.
    """

    kept: _Kept
    record: int
    begin: int
    newest: int
    files: Set[str]

    def spare(self, file: Found) -> bool:
        """Whether no version needs it, nor one that somebody may be about to write."""
        first, _, rest = file.path.partition("/")
        if first == LOG:
            return _is_passing(rest, file) or any(version < self.begin for each in logged([rest]) for version in each)
        if file.path in self.files:
            return False
        if first.startswith(SHADOW):
            begun_by = stamp(first)
            return begun_by is not None and begun_by <= self.record and first not in self.kept.shadows
        written_for = stamp(file.path)
        if written_for is None:
            return False  # it is somebody else's
        return written_for <= self.kept.version or (written_for > self.newest and _is_old(file))


class Vacuum:
    """Of one source. ``keep``: how long a record stays after another one has followed it.

    Raises TargetUnreachable, TargetRefused.
    """

    def __init__(self, store: Store, cache: Store, source: str, keep: timedelta) -> None:
        self._store = store
        self._cache = cache
        self._source = source
        self._keep = keep
        self._records = Records(store, source)
        self._pause = min(max(keep.total_seconds() / 10, _SHORTEST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
        self._due_at = 0.0
        self._run: Iterator[None] = iter(())
        self._cleaned: dict[str, _Kept] = {}

    def piece(self) -> bool:
        """Do one piece, if it is time; whether it was. The source's tables may go on between two pieces."""
        if self._goes_on():
            return True
        if time.monotonic() < self._due_at:
            return False
        self._run, self._due_at = self._pieces(), time.monotonic() + self._pause
        return self._goes_on()

    def _goes_on(self) -> bool:
        return next((True for _ in self._run), False)

    def _pieces(self) -> Iterator[None]:
        oldest = yield from self._forget_old_records()
        if oldest is None or oldest.frontier is None:
            return
        for path, kept in _kept_by(oldest).items():
            if self._cleaned.get(path) != kept:
                yield from self._clean(path, kept, oldest.number, oldest.frontier)
                self._cleaned[path] = kept
        self._clean_cache()

    def _forget_old_records(self) -> Generator[None, None, Record | None]:
        """Returns the oldest one that stays."""
        directory = self._records.directory
        files = self._store.files(directory)
        records = [file for file in files if _RECORD.fullmatch(file.path)]
        until = datetime.now(UTC) - self._keep
        old = [before for before, _ in takewhile(lambda pair: pair[1].modified < until, pairwise(records))]
        passing = [file for file in files if _is_passing(file.path, file)]
        yield
        yield from self._remove(directory, [file.path for file in (*old, *passing)])
        return self._records.read(int(records[len(old)].path[:20])) if records else None

    def _clean(self, path: str, kept: _Kept, record: int, frontier: Frontier) -> Iterator[None]:
        commits, checkpoints = logged(self._store.names(f"{path}/{LOG}"))
        try:
            snapshot = read_snapshot(self._store, path, kept.version) if kept.version in commits else None
        except TargetRefused:
            return  # somebody has removed a part of its log: nothing tells what is needed
        if snapshot is None or _is_another(snapshot, frontier):
            return
        yield
        files = {file.path for file in snapshot.files.values()}
        files |= {file.deleted.path for file in snapshot.files.values() if file.deleted is not None}
        begin = max((version for version in checkpoints if version <= kept.version), default=0)
        needs = _Needs(kept, record, begin, max(commits), files)
        spare = [file.path for file in self._store.files(path) if needs.spare(file)]
        yield
        yield from self._remove(path, spare)
        parents = {name.rpartition("/")[0] for name in spare if name.startswith(SHADOW)}
        for directory in sorted(parents | {parent.partition("/")[0] for parent in parents}, reverse=True):
            self._store.remove_if_empty(f"{path}/{directory}")

    def _clean_cache(self) -> None:
        """Of indexes of tables that the last record does not name."""
        if (last := self._records.latest()) is not None:
            paths = [path for entry in last.entries.values() for path in (entry.path, entry.shadow) if path]
            used = {index_path(self._source, path) for path in paths}
            there = [f"{self._source}/{name}" for name in self._cache.names(self._source)]
            self._cache.remove(*(path for path in there if path not in used))

    def _remove(self, directory: str, paths: Sequence[str]) -> Iterator[None]:
        """In this order, some at a time."""
        for begin in range(0, len(paths), _AT_ONCE):
            self._store.remove(*(f"{directory}/{path}" for path in paths[begin : begin + _AT_ONCE]))
            yield


def _kept_by(record: Record) -> dict[str, _Kept]:
    """What a record needs of each table that it names, by their directories."""
    kept: dict[str, _Kept] = {}
    entries = record.entries.values()
    for entry in entries:
        if entry.shadow is not None and entry.shadow_version is not None:
            kept[entry.shadow] = _Kept(entry.shadow_version)
        if entry.history is not None:
            kept[history_path(entry.path)] = _Kept(entry.history)
        if entry.version is not None:
            places = [each.shadow.rpartition("/") for each in entries if each.shadow is not None]
            kept[entry.path] = _Kept(entry.version, frozenset(name for path, _, name in places if path == entry.path))
    return kept


def _is_another(snapshot: Snapshot, frontier: Frontier) -> bool:
    """Whether it is further than the record that named its version: of a table made anew after somebody removed it."""
    return any(at > frontier.offset for name, at in snapshot.positions.items() if name.endswith(f"/{frontier.log}"))


def _is_passing(name: str, file: Found) -> bool:
    """Whether it is what a crash left of a file that was to be written in one step."""
    return name.startswith(".") and _is_old(file)


def _is_old(file: Found) -> bool:
    return file.modified < datetime.now(UTC) - _GRACE
