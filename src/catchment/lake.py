"""Reading a lake: versions of its tables that belong together.

lake = catchment.lake.open("file:///data/lake")
for table in lake.at(source="orders").tables:
    print(table.name, polars.read_delta(table.uri, version=table.version).height)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from catchment.model.errors import TargetRefused
from catchment.model.frontier import Frontier
from catchment.model.lsn import Lsn
from catchment.targets.lake.naming import FRONTIERS, history_path
from catchment.targets.lake.place import open_store
from catchment.targets.lake.record import Entry, Record, Records
from catchment.targets.lake.store import Store

if TYPE_CHECKING:
    import polars
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class LakeTable:
    """One Delta table at one version: ``uri`` and ``version`` are what every reader of Delta takes.

    ``options`` are those of its object store, as delta-rs and Polars take them.
    """

    name: str
    uri: str
    version: int
    options: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def to_arrow(self) -> pa.Table:
        """All rows."""
        import pyarrow as pa
        from deltalake import DeltaTable, QueryBuilder

        reader = QueryBuilder().register("rows", DeltaTable(self.uri, self.version, dict(self.options)))
        return pa.table(reader.execute("SELECT * FROM rows").read_all())

    def to_polars(self) -> polars.LazyFrame:
        """A lazy frame over it; Polars has to be installed."""
        import polars

        return polars.scan_delta(self.uri, version=self.version, storage_options=dict(self.options))

    def to_duckdb(self, connection: Any) -> Any:
        """A relation of this DuckDB connection, read through Arrow: DuckDB's delta extension is not needed."""
        return connection.from_arrow(self.to_arrow())


@dataclass(frozen=True, slots=True)
class View:
    """What a source's tables were at one frontier: they agree with each other.

    ``tables``: the current state of each, by its name in the source; ``histories``: all changes up to there.
    """

    source: str
    frontier: Frontier
    tables: dict[str, LakeTable]
    histories: dict[str, LakeTable]

    def __getitem__(self, name: str) -> LakeTable:
        return self.tables[name]


class Lake:
    """Made by ``open``. Raises TargetUnreachable, TargetRefused."""

    def __init__(self, store: Store, options: Mapping[str, str]) -> None:
        self._store = store
        self._options = options

    @property
    def sources(self) -> list[str]:
        """Those that something has been delivered of."""
        return [name for name in self._store.names(FRONTIERS) if not name.startswith(".")]

    def at(self, source: str, lsn: Lsn | str | None = None, time: datetime | None = None) -> View:
        """The last frontier, or the last one that is not behind this WAL position or commit time of the source.

        Raises TargetRefused when none that old is kept.
        """
        wanted = Lsn.parse(lsn) if isinstance(lsn, str) else lsn
        if wanted is not None:
            record = self._last(source, lambda frontier: frontier.lsn <= wanted)
        elif time is not None:
            record = self._last(source, lambda frontier: frontier.committed_at <= time)
        else:
            record = self._last(source, lambda _: True)
        if record is None or record.frontier is None:
            raise TargetRefused("the lake has nothing of it at that place", source=source)
        current = [self._table(entry, entry.path, entry.version) for entry in record.entries.values()]
        histories = [self._table(entry, history_path(entry.path), entry.history) for entry in record.entries.values()]
        return View(
            source,
            record.frontier,
            {table.name: table for table in current if table is not None},
            {table.name: table for table in histories if table is not None},
        )

    def _table(self, entry: Entry, path: str, version: int | None) -> LakeTable | None:
        name = f"{entry.schema}.{entry.name}"
        return None if version is None else LakeTable(name, self._store.location(path), version, self._options)

    def _last(self, source: str, covers: Callable[[Frontier], bool]) -> Record | None:
        """Records are in the order of what they cover; the first ones may have been removed just now."""
        records = Records(self._store, source)
        numbers = records.numbers()

        def is_behind(number: int) -> bool:
            record = records.read(number)
            return record is not None and (record.frontier is None or not covers(record.frontier))

        found = bisect_right(numbers, False, key=is_behind)
        return records.read(numbers[found - 1]) if found else None


def open(uri: str, options: Mapping[str, str] | None = None) -> Lake:  # noqa: A001 -- as in catchment.lake.open
    """The lake in a directory, or at a ``file://``, ``s3://``, ``gs://`` or ``az://`` URI.

    ``options`` are those of the object store, as in ``[lake.options]``. Raises ConfigError.
    """
    return Lake(open_store(uri, options or {}), options or {})
