"""One cycle of a backfill: reading a table beside the stream, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from catchment.changes.snapshot import Snapshot
from catchment.model.errors import CatchmentError, TableLocked
from catchment.model.lsn import Lsn
from catchment.pipeline.held import HeldRows
from catchment.pipeline.state import KnownTable
from catchment.pipeline.status import defect
from catchment.postgres.catalog import PublishedTable
from catchment.postgres.connection import of_source
from catchment.postgres.snapshot import SnapshotReader
from catchment.postgres.source import Source

_PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.05


class Cycle:
    """Reads one table into held rows. ``keep``: the offset behind which the stream's changes are kept, in the log.

    ``usable`` says whether a snapshot may be read with; another is taken until one is. When ``finished`` is set there
    is an ``error``, or ``snapshot``, ``fence`` and ``held``; ``published`` is null if the publication lost the table.
    """

    def __init__(
        self, source: Source, known: KnownTable, keep: int, usable: Callable[[Snapshot], bool], directory: Path
    ) -> None:
        self.known = known
        self.table = known.table
        self.keep = keep
        self.rows = 0
        self.error: CatchmentError | None = None
        self.finished = threading.Event()
        self.published: PublishedTable | None = None
        self.snapshot: Snapshot
        self.fence: Lsn
        self.held: HeldRows
        self._source = source
        self._usable = usable
        self._directory = directory
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"backfill {source.name} {self.table}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._read()
        except CatchmentError as error:
            error.source, error.table = error.source or self._source.name, error.table or str(self.table)
            self.error = error
        except Exception as error:  # noqa: BLE001  # what was read up to here must never pass for the whole table
            self.error = defect(error, self._source.name)
        finally:
            self.finished.set()

    def _read(self) -> None:
        translation = of_source(self._source.name)
        with SnapshotReader(self._source.dsn, self._source.publication, self.table, translation) as reader:
            self._begin(reader)
            published = reader.describe()
            if published is None:
                return
            self.held = HeldRows(self._directory / f"{self.table.oid}.arrow", len(published.table.columns))
            for columns in reader.read(published):
                if self._cancelled.is_set():
                    return
                self.held.write(columns)
                self.rows = self.held.rows
            self.held.finish()
            self.published = published

    def _begin(self, reader: SnapshotReader) -> None:
        """Take snapshots until one is usable."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._cancelled.is_set():
            moment = reader.begin()
            self.snapshot, self.fence = Snapshot.parse(moment.snapshot), moment.fence
            if self._usable(self.snapshot):
                return
            if time.monotonic() > deadline:
                raise TableLocked(
                    "waits for transactions that were open before it can be read",
                    source=self._source.name,
                    table=str(self.table),
                    remedy="end transactions that stay open for long on this server",
                )
            time.sleep(_LOOK_SECONDS)

    def discard(self) -> None:
        """Stop reading and let go of what is held."""
        self._cancelled.set()
        self._thread.join()
        if hasattr(self, "held"):
            self.held.remove()
