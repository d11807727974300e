"""One cycle of a backfill: reading some of a table beside the stream, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from catchment.changes.snapshot import Snapshot
from catchment.changes.waiting import Keys
from catchment.model.errors import CatchmentError, TableLocked, TableStopped
from catchment.model.lsn import Lsn
from catchment.pipeline.fingerprint import key_numbers
from catchment.pipeline.held import HeldRows
from catchment.pipeline.ranges import Ranges
from catchment.pipeline.state import KnownTable
from catchment.pipeline.status import defect
from catchment.postgres.catalog import PublishedTable
from catchment.postgres.connection import of_source
from catchment.postgres.snapshot import Reached, SnapshotReader
from catchment.postgres.source import Source

_PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.05

logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Piece:
    """What a cycle is to read: blocks from ``begin`` on (null: from the first on), and the rows with these keys.

    ``key``: the columns, by ``attnum``, that ``keys`` are of; those of another key are not looked for. ``blocks``:
    whether there are any left. ``seconds``: about how long the snapshot may be held; null for as long as it takes. A
    table without a key is read whole all the same: its rows could not be told apart later.
    """

    begin: Reached | None = None
    keys: Keys = field(default_factory=list)
    key: tuple[int, ...] = ()
    blocks: bool = True
    seconds: float | None = None

    @property
    def first(self) -> bool:
        """Whether nothing of the table was read before."""
        return self.blocks and self.begin is None


class Cycle:
    """Reads a piece of a table into held rows. ``keep``: the log's offset behind which the stream's changes are kept.

    ``usable`` says whether a snapshot may be read with; another is taken until one is. When ``finished`` is set, at
    ``finished_at`` of the monotonic clock, there is an ``error``, or ``snapshot``, ``fence``, ``held`` and ``reached``,
    which is null when no block is left. ``published`` is null if the publication lost the table. ``another_file``: the
    blocks read before are not those of the table any more, so this cycle read nothing. ``wake`` is called at the end.
    """

    def __init__(
        self,
        source: Source,
        known: KnownTable,
        piece: Piece,
        keep: int,
        usable: Callable[[Snapshot], bool],
        directory: Path,
        wake: Callable[[], None],
    ) -> None:
        self.known = known
        self.table = known.table
        self.piece = piece
        self.keep = keep
        self.rows = 0
        self.error: CatchmentError | None = None
        self.finished = threading.Event()
        self.finished_at = float("inf")
        self.published: PublishedTable | None = None
        self.reached: Reached | None = None
        self.another_file = False
        self.snapshot: Snapshot
        self.fence: Lsn
        self.held: HeldRows
        self._source = source
        self._usable = usable
        self._directory = directory
        self._wake = wake
        self._cancelled = threading.Event()
        self._holding = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"backfill {source.name} {self.table}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with self._reader() as reader:
                self._read(reader)
                self._has_finished()
                reader.release()
        except CatchmentError as error:
            error.source, error.table = error.source or self._source.name, error.table or str(self.table)
            self.error = error
        except Exception as error:  # noqa: BLE001  # what was read up to here must never pass for the whole piece
            self.error = defect(error, self._source.name)
        finally:
            self._has_finished()

    def _has_finished(self) -> None:
        if not self.finished.is_set():
            self.finished_at = time.monotonic()
            self.finished.set()
            self._wake()

    def _read(self, reader: SnapshotReader) -> None:
        self._begin(reader)
        published = reader.describe()
        if published is None:
            return
        self.held = HeldRows(self._directory / f"{self.table.oid}.arrow", len(published.table.columns))
        if self.piece.blocks:
            self._read_blocks(reader, published)
        if self.piece.keys and self.piece.key == key_numbers(published.table):
            for columns in reader.read_keys(published, self.piece.keys):
                self.held.write(columns)
        self.held.finish()
        if not self._cancelled.is_set():
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

    def _read_blocks(self, reader: SnapshotReader, published: PublishedTable) -> None:
        """Range by range until there are no more, or the time is over; a large piece by several readers."""
        whole = self.piece.seconds is None or not published.table.key
        ranges = Ranges(reader.leaves(), self.piece.begin, None if whole else self.piece.seconds)
        others = min(self._source.readers, ranges.count) - 1
        with ThreadPoolExecutor(max(others, 1), threading.current_thread().name) as pool:
            shared = reader.share() if others > 0 else ""
            reading = [pool.submit(self._read_beside, shared, ranges, published) for _ in range(others)]
            self._read_ranges(reader, ranges, published)
        for done in reading:
            done.result()
        self.reached, self.another_file = ranges.reached, ranges.another_file

    def _read_beside(self, shared: str, ranges: Ranges, published: PublishedTable) -> None:
        """What one more reader does, which sees what the first one sees."""
        with ExitStack() as stack:
            try:
                reader = stack.enter_context(self._reader())
                reader.join(shared)
            except CatchmentError as error:  # it has taken no range: the others read them all
                logger.info("one reader less", source=self._source.name, table=str(self.table), why=str(error))
                return
            self._read_ranges(reader, ranges, published)

    def _read_ranges(self, reader: SnapshotReader, ranges: Ranges, published: PublishedTable) -> None:
        try:
            for part in ranges:
                if self._cancelled.is_set():
                    return
                for columns in reader.read(published, part.leaf, part.begin, part.end):
                    if not columns:
                        remedy = "add a column, delete its rows, or leave it out of the publication"
                        raise TableStopped("has rows, but no column of them is shared", remedy=remedy)
                    with self._holding:
                        self.held.write(columns)
                        self.rows = self.held.rows
        except CatchmentError:
            self._cancelled.set()  # what the others read is not wanted without this
            raise

    def _reader(self) -> SnapshotReader:
        source = self._source
        return SnapshotReader(source.dsn, source.publication, self.table, of_source(source.name))

    def discard(self) -> None:
        """Stop reading and let go of what is held."""
        self._cancelled.set()
        self._thread.join()
        if hasattr(self, "held"):
            self.held.remove()
