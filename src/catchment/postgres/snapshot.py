"""Reading a table as one snapshot sees it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import psycopg
import pyarrow as pa
from psycopg import sql

from catchment.model.errors import CatchmentError, TableLocked
from catchment.model.lsn import Lsn
from catchment.model.table import Table
from catchment.postgres.catalog import PublishedTable, published_tables
from catchment.postgres.connection import Translation, connect
from catchment.wire import copytext

_LOCK_TIMEOUT = "5s"
_CHUNK_BYTES = 8 * 2**20
_LOOK_EVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Moment:
    """What a snapshot sees, as ``pg_snapshot`` prints it, and a WAL position behind everything that it sees."""

    snapshot: str
    fence: Lsn


class SnapshotReader:
    """One REPEATABLE READ transaction that reads one table, locked so that no TRUNCATE or rewrite can come between.

    The lock is taken before the snapshot: a snapshot older than a TRUNCATE would find the new, empty file and read
    nothing, without an error. It is held by a second transaction, through a query for no rows, since LOCK TABLE asks
    for more than SELECT on some columns. Raises SourceUnreachable, SourceRefused, TableLocked.
    https://www.postgresql.org/docs/current/mvcc-caveats.html
    """

    def __init__(self, dsn: str, publication: str, table: Table, translation: Translation) -> None:
        self._translation = translation
        self._publication = publication
        self._table = table
        self._connection = connect(dsn, translation)
        try:
            self._lock = connect(dsn, translation)
        except CatchmentError:
            self._connection.close()
            raise
        self._locked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self) -> Moment:
        """Lock the table, if it is not locked yet, and take a new snapshot in place of the one before.

        A table that was dropped is not locked, and not in the snapshot either.
        """
        with self._translation.around(str(self._table)):
            while not self._locked and (name := self._name()) is not None:
                self._take_lock(name)
            self._connection.rollback()
            self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            ((snapshot, position, segment_bytes),) = self._connection.execute(
                """SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text,
                          pg_size_bytes(current_setting('wal_segment_size'))"""
            ).fetchall()
        return Moment(snapshot=snapshot, fence=Lsn.parse(position).before_page_header(segment_bytes))

    def _name(self) -> tuple[str, str] | None:
        """The table's name now: it may have been renamed."""
        query = """SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE c.oid = %s"""
        return self._lock.execute(query, (self._table.oid,)).fetchone()

    def _take_lock(self, name: tuple[str, str]) -> None:
        self._lock.rollback()
        try:
            self._lock.execute("BEGIN")
            self._lock.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_TIMEOUT)))
            self._lock.execute(sql.SQL("SELECT FROM {} LIMIT 0").format(sql.Identifier(*name)))
            self._locked = self._name() == name
        except psycopg.errors.LockNotAvailable:
            raise self._given_up("is locked by another transaction") from None
        except psycopg.errors.UndefinedTable:
            self._lock.rollback()  # renamed or dropped just now: look again

    def describe(self) -> PublishedTable | None:
        """The table's shape in this snapshot; null when the publication no longer has it."""
        return published_tables(self._connection, self._publication, self._translation).get(self._table.oid)

    def read(self, published: PublishedTable) -> Iterator[list[pa.Array[Any]]]:
        """The rows that the publication shares, as columns of text, a few megabytes at a time.

        Raises TableLocked as soon as somebody waits for an exclusive lock: reading must not hold up their work.
        """
        looked = time.monotonic()
        with self._translation.around(str(self._table)):
            if self._connection.info.parameter_status("server_encoding") == "SQL_ASCII":
                self._connection.execute("SET LOCAL client_encoding = 'SQL_ASCII'")
            with self._connection.cursor().copy(_copy_statement(published)) as copy:
                rows: list[bytes] = []
                size = 0
                for row in copy:
                    rows.append(bytes(row))
                    size += len(row)
                    if size >= _CHUNK_BYTES:
                        yield copytext.parse(b"".join(rows), len(published.table.columns))
                        rows, size = [], 0
                        if time.monotonic() - looked > _LOOK_EVERY_SECONDS:
                            self._give_way()
                            looked = time.monotonic()
            if rows:
                yield copytext.parse(b"".join(rows), len(published.table.columns))

    def _give_way(self) -> None:
        waiting = self._lock.execute(
            """SELECT FROM pg_locks WHERE relation = %s AND NOT granted AND mode = 'AccessExclusiveLock'
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())""",
            (self._table.oid,),
        ).fetchone()
        if waiting is not None:
            raise self._given_up("is wanted exclusively by another transaction, so reading it was given up")

    def _given_up(self, what: str) -> TableLocked:
        return TableLocked(what, source=self._translation.source, table=str(self._table))

    def close(self) -> None:
        """Release snapshot and lock."""
        self._connection.close()
        self._lock.close()


def _copy_statement(published: PublishedTable) -> sql.Composed:
    table = published.table
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
    # A partitioned table has its rows in its partitions; any other is read without what inherits from it.
    only = sql.SQL("" if published.partitioned else "ONLY ")
    # The one text that a source's catalog prints and we repeat as SQL: the team's own filter, on the team's own server.
    where = sql.SQL(f" WHERE {published.row_filter}" if published.row_filter else "")
    select = sql.SQL("SELECT {} FROM {}{}{}").format(columns, only, sql.Identifier(table.schema, table.name), where)
    return sql.SQL("COPY ({}) TO STDOUT").format(select)


def current_snapshot(connection: psycopg.Connection, translation: Translation) -> str:
    """What a snapshot taken now sees, as ``pg_snapshot`` prints it."""
    with translation.around():
        ((snapshot,),) = connection.execute("SELECT pg_current_snapshot()::text").fetchall()
    return str(snapshot)


def wal_position(connection: psycopg.Connection, translation: Translation) -> Lsn:
    """The end of everything written by now, never a place that no record will ever end at."""
    with translation.around():
        ((position, segment_bytes),) = connection.execute(
            "SELECT pg_current_wal_insert_lsn()::text, pg_size_bytes(current_setting('wal_segment_size'))"
        ).fetchall()
    return Lsn.parse(position).before_page_header(segment_bytes)


def nudge(connection: psycopg.Connection, translation: Translation) -> None:
    """Have the server flush what is written so far, though nobody commits: an empty transaction with a number does.

    Nothing but a commit asks the WAL writer to flush the page it is on; without one, a position taken from the middle
    of that page could stay unsent until the next checkpoint.
    """
    with translation.around():
        connection.execute("SELECT pg_current_xact_id()")
