"""The hub's state in one SQLite file, shared by all processes of a hub on one machine."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

from catchment.hub.base import Request, Status
from catchment.model.errors import HubError

_PATIENCE = 30.0  # seconds to wait for another process's transaction

_FORMATS = (
    (
        """CREATE TABLE status (
            worker TEXT NOT NULL, source TEXT NOT NULL, target TEXT, state TEXT NOT NULL, remedy TEXT, beat TEXT,
            detail TEXT NOT NULL)""",
        "CREATE INDEX status_worker ON status (worker)",
        """CREATE TABLE request (
            id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, source TEXT NOT NULL, arguments TEXT NOT NULL,
            "by" TEXT NOT NULL, asked_at TEXT NOT NULL, worker TEXT, finished_at TEXT, outcome TEXT)""",
        "CREATE INDEX request_open ON request (id) WHERE finished_at IS NULL",
    ),
    (
        "ALTER TABLE status ADD COLUMN reported_at TEXT",
        "ALTER TABLE request ADD COLUMN claimed_at TEXT",
        "UPDATE request SET claimed_at = asked_at WHERE worker IS NOT NULL",
    ),
    (
        # When a worker reported is one value, however many loops it has; the column in ``status`` is not used any more.
        "CREATE TABLE worker (name TEXT PRIMARY KEY, reported_at TEXT NOT NULL) WITHOUT ROWID",
        "INSERT INTO worker SELECT worker, max(reported_at) FROM status WHERE reported_at IS NOT NULL GROUP BY worker",
        "DROP INDEX status_worker",
        "CREATE UNIQUE INDEX status_loop ON status (worker, source, coalesce(target, ''))",
    ),
)
FORMAT = len(_FORMATS)
"""The file's ``user_version``. What leads to each format from the one before is above, and never changes."""

_Reported = tuple[Status, str]
"""What was told of one loop, with the JSON of its detail."""

_DAMAGED = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}
_STATUS = "source, target, worker, state, remedy, beat, detail"
_REPORT = f"INSERT OR REPLACE INTO status ({_STATUS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
_REQUEST = 'id, kind, source, arguments, "by", asked_at, worker, claimed_at, finished_at, outcome'


class SqliteHub:
    """Makes the file when there is none, readable by its owner only. Raises HubError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reporting = Lock()
        self._reported: dict[str, dict[tuple[str, str | None], _Reported]] = {}
        with self._translated(), ExitStack() as opened:
            path.touch(mode=0o600)  # what SQLite puts beside it takes the same mode
            # Statuses come every second and are worth nothing after a power failure; requests must survive it.
            self._passing = opened.enter_context(closing(_Connection(path, synchronous="NORMAL")))
            self._lasting = opened.enter_context(closing(_Connection(path, synchronous="FULL")))
            self._lasting.make_tables()
            self._close = opened.pop_all().close

    def report(self, worker: str, statuses: Sequence[Status]) -> None:
        with self._reporting, self._translated():
            told = {(status.source, status.target): status for status in statuses}
            before = self._reported.pop(worker, dict[tuple[str, str | None], _Reported]())
            with self._passing.transaction() as connection:
                stamped = connection.execute("UPDATE worker SET reported_at = ? WHERE name = ?", (_now(), worker))
                if stamped.rowcount == 0 or told.keys() != before.keys():
                    before = {}
                    self._forget(connection, worker)
                    connection.execute("INSERT INTO worker VALUES (?, ?)", (worker, _now()))
                now = {loop: _reported(status, before.get(loop)) for loop, status in told.items()}
                changed = [each for loop, each in now.items() if before.get(loop) is not each]
                connection.executemany(_REPORT, [_row(worker, *each) for each in changed])
            self._reported[worker] = now

    def statuses(self) -> Sequence[Status]:
        joined = f"SELECT {_STATUS}, worker.reported_at FROM status LEFT JOIN worker ON worker.name = status.worker"
        with self._translated():
            rows = self._passing.rows(f"{joined} ORDER BY source, target, worker")
        return [
            Status(source, target, worker, state, remedy, _time(beat), json.loads(detail), _time(reported_at))
            for source, target, worker, state, remedy, beat, detail, reported_at in rows
        ]

    def forget_worker(self, worker: str) -> None:
        with self._reporting, self._translated(), self._passing.transaction() as connection:
            self._reported.pop(worker, None)
            self._forget(connection, worker)

    def _forget(self, connection: sqlite3.Connection, worker: str) -> None:
        connection.execute("DELETE FROM status WHERE worker = ?", (worker,))
        connection.execute("DELETE FROM worker WHERE name = ?", (worker,))

    def request(self, kind: str, source: str, arguments: Mapping[str, Any], by: str) -> int:
        values = (kind, source, json.dumps(arguments, allow_nan=False), by, _now())
        insert = 'INSERT INTO request (kind, source, arguments, "by", asked_at) VALUES (?, ?, ?, ?, ?)'
        with self._translated(), self._lasting.transaction() as connection:
            connection.execute(insert, values)
            ((number,),) = connection.execute("SELECT last_insert_rowid()")
        return int(number)

    def unclaimed(self) -> Collection[tuple[str, str]]:
        query = "SELECT DISTINCT source, kind FROM request WHERE worker IS NULL AND finished_at IS NULL"
        with self._translated():
            return self._lasting.rows(query)

    def claim(self, worker: str, sources: Sequence[str], kinds: Sequence[str]) -> Request | None:
        oldest = (
            "SELECT id FROM request WHERE worker IS NULL AND finished_at IS NULL"
            f" AND source IN ({_marks(sources)}) AND kind IN ({_marks(kinds)}) ORDER BY id LIMIT 1"
        )
        with self._translated():
            # Looking takes no lock, since it is done often; whoever is first to write has it.
            take = (
                "UPDATE request SET worker = ?, claimed_at = coalesce(claimed_at, ?)"
                " WHERE id = ? AND worker IS NULL AND finished_at IS NULL"
            )
            while free := self._lasting.rows(oldest, (*sources, *kinds)):
                ((number,),) = free
                if self._change(take, worker, _now(), number):
                    return self.find(number)
        return None

    def release(self, source: str) -> None:
        with self._translated():
            self._change("UPDATE request SET worker = NULL WHERE source = ? AND finished_at IS NULL", source)

    def withdraw(self, request: int, outcome: str) -> bool:
        unclaimed = "id = ? AND claimed_at IS NULL AND finished_at IS NULL"
        with self._translated():
            withdrawn = self._change(
                f"UPDATE request SET finished_at = ?, outcome = ? WHERE {unclaimed}", _now(), outcome, request
            )
        if not withdrawn:
            self.find(request)
        return bool(withdrawn)

    def finish(self, request: int, outcome: str) -> None:
        with self._translated():
            found = self._change(
                "UPDATE request SET finished_at = ?, outcome = ? WHERE id = ?", _now(), outcome, request
            )
        if not found:
            raise _unknown(request)

    def find(self, request: int) -> Request:
        with self._translated():
            rows = self._lasting.rows(f"SELECT {_REQUEST} FROM request WHERE id = ?", (request,))
        for number, kind, source, arguments, by, asked_at, worker, claimed_at, finished_at, outcome in rows:
            return Request(
                number,
                kind,
                source,
                json.loads(arguments),
                by,
                datetime.fromisoformat(asked_at),
                worker,
                _time(claimed_at),
                _time(finished_at),
                outcome,
            )
        raise _unknown(request)

    def close(self) -> None:
        with self._translated():
            self._close()

    def _change(self, statement: str, *values: str | int) -> int:
        with self._lasting.transaction() as connection:
            return connection.execute(statement, values).rowcount

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            damaged = getattr(error, "sqlite_errorcode", None) in _DAMAGED
            raise HubError(
                f"cannot use {self._path}: {reason}",
                remedy="stop the hub and move the file away: neither logs nor targets need it, requests are lost"
                if damaged
                else "see that its disk has space and that it belongs to the user who runs the hub",
            ) from error


class _Connection:
    """One connection, used by one thread at a time."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._path = path
        self._lock = Lock()
        self._sqlite = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        self._use_write_ahead_log()
        self._sqlite.execute(f"PRAGMA synchronous = {synchronous}")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._sqlite.execute("BEGIN IMMEDIATE")
            try:
                yield self._sqlite
                self._sqlite.execute("COMMIT")
            finally:
                if self._sqlite.in_transaction:
                    self._sqlite.execute("ROLLBACK")

    def rows(self, query: str, values: Sequence[str | int] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._sqlite.execute(query, values).fetchall()

    def make_tables(self) -> None:
        with self.transaction() as connection:
            ((version,),) = connection.execute("PRAGMA user_version")
            if version > FORMAT:
                raise HubError(
                    f"{self._path} has format {version}, this Catchment knows {FORMAT}",
                    remedy="use the newer Catchment that made it, or give this one another [hub] state",
                )
            if version < FORMAT:
                for statement in chain(*_FORMATS[version:]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {FORMAT}")

    def close(self) -> None:
        with self._lock:
            self._sqlite.close()

    def _use_write_ahead_log(self) -> None:
        # Of several processes that change the mode of a new file at once all but one are refused without waiting.
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._sqlite.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return


def _reported(status: Status, before: _Reported | None) -> _Reported:
    """With the text of its detail, which is not made anew when it is the same: often only the beat is another."""
    if before is not None and before[0] is status:
        return before
    if before is not None and before[0].detail is status.detail:
        return status, before[1]
    return status, json.dumps(status.detail, allow_nan=False)


def _row(worker: str, status: Status, detail: str) -> tuple[str | None, ...]:
    beat = status.beat.isoformat() if status.beat else None
    return status.source, status.target, worker, status.state, status.remedy, beat, detail


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _unknown(request: int) -> HubError:
    return HubError(f"there is no request {request}", remedy="ask again")
