"""The lake: every source's tables, as they are and as they became so, as Delta tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Lock
from typing import Literal

from catchment.model.batch import Batch
from catchment.model.frontier import Frontier
from catchment.targets.base import Pace
from catchment.targets.lake.lake import SourceLake
from catchment.targets.lake.local import LocalStore
from catchment.targets.lake.store import Store
from catchment.targets.lake.transaction import Transaction

KEEP = timedelta(days=7)
_PACE = Pace(delay=5.0, bytes=64 << 20)


class LakeTarget:
    """A target that many threads may use, each for its own source; ``datasets`` says where a source's rows land.

    ``store`` is the lake's; ``cache`` a directory of this machine for what can be made again from it. ``columns``:
    types chosen for numeric columns, by source, schema, table and name. What was the last record can be read for
    ``keep`` longer than it was the last one.
    """

    scope: Literal["source"] = "source"

    def __init__(
        self,
        store: Store,
        cache: Path,
        datasets: Mapping[str, str],
        columns: Mapping[str, str] | None = None,
        name: str = "lake",
        pace: Pace = _PACE,
        keep: timedelta = KEEP,
    ) -> None:
        self.name = name
        self.pace = pace
        self._store = store
        self._cache = LocalStore(cache)
        self._datasets = datasets
        self._columns = columns or {}
        self._keep = keep
        self._lakes: dict[str, SourceLake] = {}
        self._lock = Lock()

    def frontier(self, source: str) -> Frontier | None:
        """As the last record says. Raises TargetUnreachable, TargetRefused."""
        with self._lend(source) as lake:
            return lake.refresh()

    def apply(self, source: str, batches: Iterable[tuple[Frontier, Batch]], durable: bool = True) -> None:
        """New versions of tables, then the record that names them. Raises TargetUnreachable, TargetRefused."""
        with self._lend(source) as lake:
            transaction = Transaction(lake, self._datasets[source])
            for frontier, batch in batches:
                transaction.take(frontier, batch)
            transaction.commit()

    def tend(self, source: str, seconds: float) -> bool:
        """Write small files anew as larger ones, and checkpoints; remove what no kept record needs."""
        with self._lend(source) as lake:
            return lake.tend(seconds)

    def out_of_date(self, source: str) -> Mapping[str, str | None]:
        """Those whose change of shape takes a refill, and those that somebody removed."""
        with self._lend(source) as lake:
            lake.refresh()
            entries = [entry for entry in lake.record.entries.values() if entry.refill is None]
            found = [entry for entry in entries if entry.waits or lake.missing(entry)]
            return {f"{entry.schema}.{entry.name}": None for entry in found}

    def forget(self, source: str) -> None:
        """Delete the source's tables, histories and records."""
        with self._lend(source) as lake:
            lake.refresh()
            lake.forget()

    def close(self) -> None:
        """Let go of what is known of the tables."""
        with self._lock:
            self._lakes.clear()

    @contextmanager
    def _lend(self, source: str) -> Iterator[SourceLake]:
        """For a block, after which it is used again only if nothing failed."""
        with self._lock:
            lake = self._lakes.pop(source, None)
            if lake is None:
                lake = SourceLake(self._store, self._cache, source, self._columns, self._keep)
        yield lake
        with self._lock:
            self._lakes[source] = lake
