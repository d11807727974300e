"""Reading a table as one snapshot sees it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import psycopg
import pyarrow as pa
from psycopg import sql

from catchment.model.errors import CatchmentError, TableLocked
from catchment.model.lsn import Lsn
from catchment.model.table import Table
from catchment.postgres.catalog import PublishedTable, published_tables
from catchment.postgres.comparing import key_columns, wanted_rows
from catchment.postgres.connection import Translation, connect
from catchment.postgres.copydata import copied
from catchment.postgres.exclusive import wanted_exclusively
from catchment.wire.twin import parse

_LOCK_TIMEOUT, _READ_TIMEOUT = "5s", "1s"
_LOOK_EVERY_SECONDS = 1.0
_MOST_KEYS = 10_000

_LEAVES = """
SELECT c.oid::bigint, n.nspname, c.relname, c.relfilenode::bigint,
       pg_relation_size(c.oid) / current_setting('block_size')::int,
       NOT (has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE'))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r'
  AND (c.oid = %(table)s OR c.oid IN (SELECT relid FROM pg_partition_tree(%(table)s) WHERE isleaf))
ORDER BY c.oid
"""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a snapshot sees, as ``pg_snapshot`` prints it, and a WAL position behind everything that it sees."""

    snapshot: str
    fence: Lsn


@dataclass(frozen=True, slots=True)
class Reached:
    """What of a table is read next: a block of a leaf, all before it and all leaves with lower oids having been read.

    ``filenode``: the leaf's file; in another one the blocks are other blocks. ``blocks``: how many there were to read.
    """

    leaf: int
    filenode: int
    block: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """Where rows of a table are: itself, or a partition that has none of its own. ``blocks`` as of the snapshot.

    ``whole``: it is not to be divided; then it is the table itself, with all its partitions.
    """

    oid: int
    schema: str
    name: str
    filenode: int
    blocks: int
    whole: bool = False


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
        self._looked = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self) -> Moment:
        """Lock the table, if it is not locked yet, and take a new snapshot in place of the one before.

        A table that was dropped is not locked, and not in the snapshot either. Raises TableLocked as soon as somebody
        waits for an exclusive lock.
        """
        with self._translation.around(str(self._table)):
            while not self._locked and (name := self._name()) is not None:
                self._take_lock(name)
            self._give_way()
            self._connection.rollback()
            self._begin()
            ((snapshot, position, segment_bytes),) = self._connection.execute(
                """SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text,
                          pg_size_bytes(current_setting('wal_segment_size'))"""
            ).fetchall()
        return Moment(snapshot=snapshot, fence=Lsn.parse(position).before_page_header(segment_bytes))

    def share(self) -> str:
        """A name under which other readers can ``join``, until this one is closed.

        https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-SNAPSHOT-SYNCHRONIZATION
        """
        with self._translation.around(str(self._table)):
            ((shared,),) = self._connection.execute("SELECT pg_export_snapshot()").fetchall()
        return str(shared)

    def join(self, shared: str) -> None:
        """Read in another reader's snapshot. That one's lock is why no TRUNCATE can have come between."""
        with self._translation.around(str(self._table)):
            if (name := self._name()) is not None:
                self._take_lock(name)
            self._begin()
            self._connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(shared)))

    def _begin(self) -> None:
        self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # Reading asks for the lock once more. If by then somebody waits for an exclusive one, that waits for them,
        # they wait for the lock we have, and no deadlock is found: these are two sessions.
        self._connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_READ_TIMEOUT)))

    def _name(self) -> tuple[str, str, bool] | None:
        """Schema and name of the table now, since it may have been renamed, and whether it has partitions."""
        query = """SELECT n.nspname, c.relname, c.relkind = 'p'
                   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s"""
        return self._lock.execute(query, (self._table.oid,)).fetchone()

    def _take_lock(self, name: tuple[str, str, bool]) -> None:
        self._lock.rollback()
        try:
            self._lock.execute("BEGIN")
            self._lock.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_TIMEOUT)))
            *relation, partitioned = name
            # What inherits from a table is none of ours, and may be a foreign table that cannot be reached.
            only = sql.SQL("" if partitioned else "ONLY ")
            self._lock.execute(sql.SQL("SELECT FROM {}{} LIMIT 0").format(only, sql.Identifier(*relation)))
            self._locked = self._name() == name
        except psycopg.errors.LockNotAvailable:
            raise self._given_up("is locked by another transaction") from None
        except psycopg.errors.UndefinedTable:
            self._lock.rollback()  # renamed or dropped just now: look again

    def describe(self) -> PublishedTable | None:
        """The table's shape in this snapshot; null when the publication no longer has it."""
        oid = self._table.oid
        return published_tables(self._connection, self._publication, self._translation, only=oid).get(oid)

    def leaves(self) -> list[Leaf]:
        """Where the table's rows are, by oid.

        To address blocks, or a partition by its own name, needs SELECT on all of it: where only columns or only the
        root are granted, there is just the table, whole.
        https://www.postgresql.org/docs/current/ddl-system-columns.html
        """
        with self._translation.around(str(self._table)):
            found = self._connection.execute(_LEAVES, {"table": self._table.oid}).fetchall()
            leaves = [Leaf(*leaf) for leaf in found]
            if not any(leaf.whole for leaf in leaves) or (name := self._name()) is None:
                return leaves
        blocks = max(1, sum(leaf.blocks for leaf in leaves))
        return [Leaf(self._table.oid, *name[:2], self._table.filenode, blocks, whole=True)]

    def read(self, published: PublishedTable, leaf: Leaf, begin: int, end: int) -> Iterator[list[pa.Array[Any]]]:
        """The rows that the publication shares of these blocks, as columns of text, a few megabytes at a time.

        Raises TableLocked as soon as somebody waits for an exclusive lock: reading must not hold up their work.
        """
        condition = sql.SQL("ctid >= '({},0)' AND ctid < '({},0)'").format(sql.Literal(begin), sql.Literal(end))
        if leaf.whole:
            condition = sql.Composed([sql.SQL("true")])
        only = sql.SQL("" if leaf.whole and published.partitioned else "ONLY ")
        relation = sql.SQL("{}{}").format(only, sql.Identifier(leaf.schema, leaf.name))
        yield from self._copy(_select(published, relation, condition), len(published.table.columns))

    def read_keys(self, published: PublishedTable, keys: Sequence[pa.Array[Any]]) -> Iterator[list[pa.Array[Any]]]:
        """The rows that the publication shares of those with these keys, one column of texts for each key column."""
        table = published.table
        relation = sql.SQL("{}{}").format(
            sql.SQL("" if published.partitioned else "ONLY "), sql.Identifier(table.schema, table.name)
        )
        with self._translation.around(str(self._table)):
            columns = key_columns(self._connection, table.oid, table.key)
        for begin in range(0, len(keys[0]), _MOST_KEYS):
            wanted, found = wanted_rows(columns, [key.slice(begin, _MOST_KEYS) for key in keys])
            condition = sql.SQL("EXISTS (SELECT FROM {} WHERE {})").format(wanted, found)
            yield from self._copy(_select(published, relation, condition), len(table.columns))

    def _copy(self, select: sql.Composed, columns: int) -> Iterator[list[pa.Array[Any]]]:
        # As bytes: where the connection has no encoding psycopg could not write the names.
        statement = sql.SQL("COPY ({}) TO STDOUT").format(select).as_string(None).encode()
        with self._translation.around(str(self._table)), self._undecoded():
            for rows in copied(self._connection, statement):
                yield parse(rows, columns)
                self._give_way()

    @contextlib.contextmanager
    def _undecoded(self) -> Iterator[None]:
        """A server that does not know its encoding cannot turn its bytes into UTF-8: they come as they are."""
        unknown = self._connection.info.parameter_status("server_encoding") == "SQL_ASCII"
        if unknown:
            self._connection.execute("SET LOCAL client_encoding = 'SQL_ASCII'")
        yield
        if unknown:
            self._connection.execute("SET LOCAL client_encoding = 'UTF8'")

    def _give_way(self) -> None:
        if time.monotonic() - self._looked < _LOOK_EVERY_SECONDS:
            return
        self._looked = time.monotonic()
        if wanted_exclusively(self._lock, self._table.oid):
            raise self._given_up("is wanted exclusively by another transaction, so reading it was given up")

    def _given_up(self, what: str) -> TableLocked:
        return TableLocked(what, source=self._translation.source, table=str(self._table))

    def release(self) -> None:
        """Release snapshot and lock, and have the stream pass the fence at once, though nobody else may commit."""
        with self._translation.around(str(self._table)):
            self._connection.rollback()
            self._lock.rollback()
        nudge(self._lock, self._translation)

    def close(self) -> None:
        """Release snapshot and lock."""
        self._connection.close()
        self._lock.close()


def _select(published: PublishedTable, relation: sql.Composed, condition: sql.Composed) -> sql.Composed:
    columns = sql.SQL(", ").join(sql.Identifier(column.name) for column in published.table.columns)
    # The one text that a source's catalog prints and we repeat as SQL: the team's own filter, on the team's own server.
    shared = sql.SQL(f" AND ({published.row_filter})" if published.row_filter else "")
    return sql.SQL("SELECT {} FROM {} AS t WHERE {}{}").format(columns, relation, condition, shared)


def current_snapshot(connection: psycopg.Connection, translation: Translation) -> str:
    """What a snapshot taken now sees, as ``pg_snapshot`` prints it."""
    with translation.around():
        ((snapshot,),) = connection.execute("SELECT pg_current_snapshot()::text").fetchall()
    return str(snapshot)


def server_time(connection: psycopg.Connection, translation: Translation) -> datetime:
    """What the server's clock says."""
    with translation.around():
        ((now,),) = connection.execute("SELECT clock_timestamp()").fetchall()
    assert isinstance(now, datetime)  # noqa: S101 -- what the type of clock_timestamp() is
    return now


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
