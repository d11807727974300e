"""One source's part of the lake: its last record, and its tables as this process has left them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta

from catchment.model.errors import TargetRefused, TargetUnreachable
from catchment.model.frontier import Frontier
from catchment.model.table import Table
from catchment.targets.lake.checkpoint import is_due, write_checkpoint
from catchment.targets.lake.columns import Types, chosen_types, types_of
from catchment.targets.lake.current import CurrentTable
from catchment.targets.lake.delta import LOG
from catchment.targets.lake.history import HistoryTable
from catchment.targets.lake.local import LocalStore
from catchment.targets.lake.naming import history_path
from catchment.targets.lake.record import Entry, Record, Records, first, following
from catchment.targets.lake.store import Store
from catchment.targets.lake.vacuum import Vacuum


class SourceLake:
    """Good for nothing once something on it failed: what is in memory may not be what is in the lake."""

    def __init__(
        self, store: Store, cache: LocalStore, source: str, columns: Mapping[str, str], keep: timedelta
    ) -> None:
        self.source = source
        self.store = store
        self.record: Record = first()
        self._cache = cache
        self._columns = columns
        self._records = Records(store, source)
        self._current: dict[str, CurrentTable] = {}
        self._histories: dict[str, HistoryTable] = {}
        self._vacuum = Vacuum(store, cache, source, keep)
        self._touched: set[str] = set()

    def refresh(self) -> Frontier | None:
        """Look for the last record; what it names is opened anew when somebody else has written it."""
        known = self.record if self.record.number >= 0 else None
        found = self._records.latest(known)
        if found is None:
            found = first()
        if found.number != self.record.number:
            self._current.clear()
            self._histories.clear()
            self.record = found
            self._open_what_is_ahead()
        if found.number >= 0 and found.frontier is None:
            self._finish_forgetting(found)
        return self.record.frontier

    def current(self, path: str) -> CurrentTable:
        """A current-state table that a record names. Raises TargetRefused when it is gone."""
        self._touched.add(path)
        if path not in self._current:
            table = CurrentTable.open(self.store, self._cache, path, self.source)
            if table is None:
                raise self.gone(path)
            self._current[path] = table
        return self._current[path]

    def current_if_there(self, path: str) -> CurrentTable | None:
        """The same for one that need not be there."""
        if path not in self._current:
            table = CurrentTable.open(self.store, self._cache, path, self.source)
            if table is None:
                return None
            self._current[path] = table
        return self._current[path]

    def new_current(self, path: str, shape: Table) -> CurrentTable:
        """An empty current-state table at a place where there is none."""
        table = self._current[path] = CurrentTable.create(
            self.store, self._cache, path, self.source, shape, chosen_types(self._columns, self.source, shape)
        )
        return table

    def history(self, path: str, shape: Table) -> HistoryTable:
        """A history, made if it is not there."""
        self._touched.add(path)
        if path not in self._histories:
            self._histories[path] = HistoryTable.opened(self.store, path, self.source, shape, self.types_of(shape))
        return self._histories[path]

    def types_of(self, shape: Table) -> Types:
        """What is chosen for columns of a table by now; a current state keeps what it was made with."""
        return types_of(chosen_types(self._columns, self.source, shape))

    def let_go(self, path: str) -> None:
        """Of a table that is not used any more."""
        self._current.pop(path, None)

    def commit(self, frontier: Frontier, seq: int, entries: Iterable[Entry], position: str) -> None:
        """Make all that was done to the tables part of the lake, together with the frontier.

        Raises TargetUnreachable when a table holds changes from behind the frontier: they were written before a crash,
        and their versions belong to a later place of the log.
        """
        tables = [table.snapshot for table in self._current.values()]
        tables += [table.snapshot for table in self._histories.values()]
        for table in tables:
            if table.positions.get(position, -1) > frontier.offset:
                raise TargetUnreachable(
                    f"{table.path} is already further than what is to be written",
                    source=self.source,
                    remedy="it is tried again with more of the log",
                )
        named = {entry.oid: self._at_last(entry) for entry in entries}
        self.record = self._records.write(following(self.record, frontier, seq, named))

    def tend(self, seconds: float) -> bool:
        """Do what there is to do beside changes, piece by piece, until it is done or so much time has passed.

        Whether there may be more to do. It makes versions that no record names before the next one: no row changes in
        them.
        """
        until = time.monotonic() + seconds
        while self._piece():
            if time.monotonic() >= until:
                return True
        return False

    def forget(self) -> None:
        """Remove everything, and begin by saying so: interrupted, it is finished by whoever comes next."""
        if self.record.number >= 0:
            self._finish_forgetting(self._records.write(following(self.record, None, 0, self.record.entries)))

    def missing(self, entry: Entry) -> bool:
        """Whether somebody removed the version of a table that readers are meant to see."""
        return entry.version is not None and self.store.read(_commit_file(entry.path, entry.version)) is None

    def gone(self, path: str) -> TargetRefused:
        """The error of a table that a record names."""
        return TargetRefused(
            f"{self.store.location(path)} is gone", source=self.source, remedy="put it back, or refill the table"
        )

    def _piece(self) -> bool:
        """One of a second at most; whether there was one."""
        if self._vacuum.piece():
            return True
        while self._touched:
            path = min(self._touched)
            if self._look_after_table(path):
                return True
            self._touched.discard(path)
        return False

    def _look_after_table(self, path: str) -> bool:
        """Of those that were written to: few files, and a short way to what is in them."""
        table = self._current.get(path) or self._histories.get(path)
        if table is None:
            return False
        if is_due(table.snapshot):
            table.snapshot = write_checkpoint(self.store, table.snapshot)
            return True
        return table.tidy()

    def _at_last(self, entry: Entry) -> Entry:
        """The entry with the versions that its tables have by now."""
        if (live := self._current.get(entry.path)) is not None and entry.version is not None:
            entry = replace(entry, version=live.snapshot.version)
        if entry.shadow is not None and (shadow := self._current.get(entry.shadow)) is not None:
            entry = replace(entry, shadow_version=shadow.snapshot.version)
        if (history := self._histories.get(history_path(entry.path))) is not None:
            entry = replace(entry, history=history.snapshot.version)
        return entry

    def _open_what_is_ahead(self) -> None:
        """Tables that a crash left further than the record says."""
        for entry in self.record.entries.values():
            for path, version in ((entry.path, entry.version), (entry.shadow, entry.shadow_version)):
                if path is not None and version is not None and self._is_ahead(path, version):
                    self.current(path)
            if entry.history is not None and self._is_ahead(history_path(entry.path), entry.history):
                path = history_path(entry.path)
                self._histories[path] = HistoryTable.reopened(self.store, path, self.source)

    def _is_ahead(self, path: str, version: int) -> bool:
        return self.store.read(_commit_file(path, version + 1)) is not None

    def _finish_forgetting(self, record: Record) -> None:
        paths = {entry.path for entry in record.entries.values()}
        self.store.remove(*sorted(paths), *sorted(map(history_path, paths)))
        for dataset in {path.partition("/")[0] for path in paths}:
            self.store.remove_if_empty(dataset)
        numbers = [number for number in self._records.numbers() if number != record.number]
        self.store.remove(*(self._records.path(number) for number in numbers))
        self.store.remove(self._records.directory)
        self._cache.remove(self.source)
        self._current.clear()
        self._histories.clear()
        self.record = first()


def _commit_file(path: str, version: int) -> str:
    return f"{path}/{LOG}/{version:020}.json"
