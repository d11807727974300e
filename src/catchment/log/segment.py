"""One file of the embedded log: a SQLite database with whole transactions and the state behind them.

A file is named by its first offset and appears under that name complete: it is built under another one, synchronised
and renamed. It starts with the tail and the whole state of the log so far, so that the newest file says all that a
writer needs. Once there is a newer file, no batch is written to it any more, ever.

https://www.sqlite.org/wal.html
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from catchment.log.base import State, Tail
from catchment.log.continuity import EPOCH
from catchment.log.translation import damaged
from catchment.model.batch import Batch
from catchment.model.errors import LogCorrupt, LogError
from catchment.model.frontier import Frontier
from catchment.model.lsn import Lsn

FORMAT = 1

_BUSY_SECONDS = 30
_PAGE_BYTES = 16 * 2**10  # large batches cost half of what they do in SQLite's usual 4 kB, small ones the same
_CHECKPOINT_PAGES = 1024
_WAL_BYTES_KEPT = 64 * 2**20
_TABLES = """
CREATE TABLE tail (
    log TEXT NOT NULL,
    "offset" INTEGER NOT NULL,
    lsn INTEGER NOT NULL,
    committed_at INTEGER NOT NULL,
    bytes_through INTEGER NOT NULL
);
CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE batches (
    "offset" INTEGER PRIMARY KEY,
    after INTEGER NOT NULL,
    until INTEGER NOT NULL,
    part INTEGER NOT NULL,
    ends_transaction INTEGER NOT NULL,
    committed_at INTEGER NOT NULL,
    appended_at INTEGER NOT NULL,
    bytes_through INTEGER NOT NULL,
    payload BLOB NOT NULL
);
"""
# Times are microseconds since 1970. ``bytes_through`` counts payload bytes since the log began: the size of any run of
# batches is one difference. The payload comes last, so that the fields before it are read without it.

_NAME = re.compile(r"(\d{20})\.sqlite")


@dataclass(frozen=True, slots=True)
class Segment:
    """One file, and whether a newer one exists. Offsets from ``first`` on are in it, up to the next file's first."""

    path: Path
    first: int
    sealed: bool


class SegmentGone(Exception):
    """The file was trimmed since it was listed: list again."""


def segments(directory: Path) -> list[Segment]:
    """The files of a source's log, oldest first; none when there is no log."""
    try:
        names = os.listdir(directory)  # noqa: PTH208 (no Path for each: this is asked a hundred times a second)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LogError(
            f"cannot read {directory}: {error.strerror}",
            source=directory.name,
            remedy="run this command as the user who runs the hub; [hub] state has to be a directory of its own",
        ) from error
    firsts = sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)
    return [Segment(segment_path(directory, first), first, first != firsts[-1]) for first in firsts]


def segment_path(directory: Path, first: int) -> Path:
    return directory / f"{first:020}.sqlite"


def create(path: Path, tail: Tail, bytes_through: int) -> None:
    """Make a file that goes on from ``tail``. Durable on return; a crash on the way leaves nothing under this name."""
    unfinished = path.with_name(f"{path.name}.new")
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
        connection.executescript(
            f"PRAGMA page_size = {_PAGE_BYTES}; PRAGMA journal_mode = MEMORY; PRAGMA synchronous = FULL; "
            f"BEGIN; PRAGMA user_version = {FORMAT}; {_TABLES}"
        )
        connection.execute("INSERT INTO tail VALUES (?, ?, ?, ?, ?)", _tail_row(tail.frontier, bytes_through))
        connection.executemany("INSERT INTO state VALUES (?, ?)", tail.state.items())
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
    unfinished.rename(path)
    synchronise_directory(path.parent)


def connect_writer(path: Path) -> sqlite3.Connection:
    """A connection whose commits are durable."""
    connection = _connect(path, "mode=rw")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_KEPT}")
    return connection


def inode(segment: Segment) -> int:
    """What tells the file from another one that had the same name. Raises SegmentGone."""
    try:
        return segment.path.stat().st_ino
    except FileNotFoundError as error:
        raise SegmentGone from error


def connect_reader(segment: Segment) -> sqlite3.Connection:
    """A connection to read with, from any thread. Raises SegmentGone."""
    # A sealed file without a write-ahead log needs no -shm file beside it: it is readable on a full disk too.
    immutable = segment.sealed and not _size(_beside(segment.path, "-wal"))
    try:
        return _connect(segment.path, "immutable=1" if immutable else "mode=rw")
    except sqlite3.OperationalError as error:
        if not segment.path.exists():
            raise SegmentGone from error
        raise


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != FORMAT:
            raise damaged(f"{path} has format {version}, this program reads format {FORMAT}", path.parent.name)
    except (sqlite3.Error, LogCorrupt):
        connection.close()
        raise
    return connection


def read_tail(connection: sqlite3.Connection) -> tuple[Frontier, int]:
    """Where finished transactions end, and the payload bytes of the log up to there."""
    log, offset, lsn, committed_at, bytes_through = connection.execute("SELECT * FROM tail").fetchone()
    return Frontier(UUID(log), offset, Lsn(lsn), to_datetime(committed_at)), bytes_through


def read_state(connection: sqlite3.Connection) -> dict[str, bytes]:
    """The state saved with finished transactions."""
    return dict(connection.execute("SELECT key, value FROM state"))


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; durable when it ends."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def bytes_before(connection: sqlite3.Connection) -> int:
    """The payload bytes of the log before this file's first batch."""
    (found,) = connection.execute(
        'SELECT coalesce((SELECT bytes_through - length(payload) FROM batches ORDER BY "offset" LIMIT 1), '
        "bytes_through) FROM tail"
    ).fetchone()
    return int(found)


def insert_batch(
    connection: sqlite3.Connection,
    offset: int,
    batch: Batch,
    appended_at: datetime,
    bytes_through: int,
    payload: bytes,
) -> None:
    connection.execute(
        "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            offset,
            int(batch.after),
            int(batch.until),
            batch.part,
            batch.ends_transaction,
            _microseconds(batch.committed_at),
            _microseconds(appended_at),
            bytes_through,
            payload,
        ),
    )


def update_tail(connection: sqlite3.Connection, frontier: Frontier, bytes_through: int, changes: State) -> None:
    """A transaction is finished: from now on it is visible, and the state is what came with it."""
    connection.execute(
        'UPDATE tail SET (log, "offset", lsn, committed_at, bytes_through) = (?, ?, ?, ?, ?)',
        _tail_row(frontier, bytes_through),
    )
    for key, value in changes.items():
        if value is None:
            connection.execute("DELETE FROM state WHERE key = ?", (key,))
        else:
            connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, value))


def discard_unfinished(connection: sqlite3.Connection) -> None:
    connection.execute('DELETE FROM batches WHERE "offset" > (SELECT "offset" FROM tail)')


def seal(connection: sqlite3.Connection) -> None:
    """Move all that was written into the file itself and close it."""
    with closing(connection):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def stored_bytes(segment: Segment) -> int:
    """What the file takes on the disk, with what SQLite keeps beside it; 0 when it has been trimmed."""
    return _size(segment.path) + _size(_beside(segment.path, "-wal"))


def unlink(segment: Segment) -> None:
    """Remove a file. Durable on return, so that files are gone in the order in which they were removed."""
    # The file goes first: a write-ahead log without its file is nothing, a file without its log would be damaged.
    for path in (segment.path, _beside(segment.path, "-wal"), _beside(segment.path, "-shm")):
        path.unlink(missing_ok=True)
    synchronise_directory(segment.path.parent)


def sweep(directory: Path) -> None:
    """Remove what a crash left behind: files half made, and what SQLite keeps beside a file that is gone."""
    for path in directory.iterdir():
        match = _NAME.match(path.name)
        half_made = path.name.endswith(".new")
        if match and (half_made or not (directory / match[0]).exists()):
            path.unlink(missing_ok=True)


def synchronise_directory(directory: Path) -> None:
    """Make names that were created or removed in it durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def to_datetime(microseconds: int) -> datetime:
    """The time that a file states."""
    return EPOCH + timedelta(microseconds=microseconds)


def _microseconds(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def _tail_row(frontier: Frontier, bytes_through: int) -> tuple[str, int, int, int, int]:
    return (str(frontier.log), frontier.offset, int(frontier.lsn), _microseconds(frontier.committed_at), bytes_through)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
