"""Looking at a source's rows, a little at a time, to compare them with what a target has."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

import psycopg
from psycopg import sql

from catchment.changes.snapshot import Snapshot
from catchment.model.errors import SourceUnreachable, TableLocked
from catchment.model.lsn import Lsn
from catchment.model.table import Table
from catchment.postgres.catalog import PublishedTable, published_tables, verify_publication
from catchment.postgres.comparing import SNAPSHOT, ComparedTable, begun, key_columns
from catchment.postgres.connection import connect, of_source
from catchment.postgres.exclusive import wanted_exclusively
from catchment.postgres.source import Source

_MOST_CHANGES = 200_000
_LOOK_EVERY_SECONDS = 1.0
_WANTED = "is locked by another transaction, or wanted exclusively, so comparing it was given up"

# Messages of protocol version 1, as the slot would send them: of transactions that the log does not have, what they
# change. Begin has the LSN of the commit, by which a restart decides too.
# https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
_UNCOLLECTED = """
WITH told AS MATERIALIZED (
    SELECT xid, data, chr(get_byte(data, 0)) AS kind
    FROM pg_logical_slot_peek_binary_changes(%(slot)s, %(until)s, %(most)s,
                                             'proto_version', '1', 'publication_names', %(publication)s)
), fresh AS (
    SELECT xid, data, kind FROM told WHERE xid::text IN (
        SELECT xid::text FROM told
        WHERE kind = 'B' AND ('x' || encode(substr(data, 2, 8), 'hex'))::bit(64)::bigint >= %(after)s)
)
SELECT DISTINCT ('x' || encode(substr(data, place, 4), 'hex'))::bit(32)::bigint, (SELECT count(*) FROM told)
FROM fresh CROSS JOIN LATERAL generate_series(
    CASE kind WHEN 'T' THEN 7 ELSE 2 END, CASE kind WHEN 'T' THEN length(data) - 3 ELSE 2 END, 4) AS place
WHERE kind IN ('I', 'U', 'D', 'T')
"""


@dataclass(frozen=True, slots=True)
class Sight:
    """What a snapshot sees, and a WAL position behind everything that it sees."""

    snapshot: Snapshot
    fence: Lsn


class SourceReader:
    """Two connections to a source: one reads in short snapshots, the other asks the catalog and holds locks meanwhile.

    Raises SourceUnreachable, SourceRefused, TableLocked.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._translation = of_source(source.name)
        with ExitStack() as opening:
            self._connection = opening.enter_context(connect(source.dsn, self._translation))
            self._catalog = opening.enter_context(connect(source.dsn, self._translation))
            with self._translation.around():
                # Comparing must not take more than one core of the source.
                self._connection.execute("SET max_parallel_workers_per_gather = 0")
                self._catalog.execute("SET lock_timeout = '5s'; SET synchronous_commit = local")
            verify_publication(self._catalog, source.publication, self._translation, None)
            self._opened = opening.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def name(self) -> str:
        """The source's."""
        return self._source.name

    def tables(self) -> dict[int, PublishedTable]:
        """What is published now."""
        return published_tables(self._catalog, self._source.publication, self._translation)

    def compared(self, published: PublishedTable, trimmed: frozenset[str]) -> ComparedTable:
        """The rows of a table that the publication shares; ``trimmed`` columns are hashed without trailing zeros."""
        table = published.table
        with self._translation.around(str(table)):
            key = key_columns(self._catalog, table.oid, table.key)
        relation = _relation(published)
        names = [column.name for column in table.columns]
        return ComparedTable(
            self._connection, self._translation, str(table), relation, names, key, published.row_filter, trimmed
        )

    @contextlib.contextmanager
    def snapshot(self, published: PublishedTable) -> Iterator[Sight]:
        """A snapshot for the block, of a table that is locked before it is taken.

        A snapshot older than a rewrite of the table would find nothing in it, without an error. Raises TableLocked,
        also in the block as soon as somebody waits for an exclusive lock.
        https://www.postgresql.org/docs/current/mvcc-caveats.html
        """
        table = published.table
        with self._locked(table), self._translation.around(str(table)), begun(self._catalog):
            # LOCK TABLE asks for more than SELECT on some columns.
            self._catalog.execute(sql.SQL("SELECT FROM {} LIMIT 0").format(_relation(published)))
            with begun(self._connection, SNAPSHOT):
                # Whoever has come between waits for the lock we have, and reading would wait for him.
                self._connection.execute("SET LOCAL lock_timeout = '1s'")
                ((snapshot, position, segment_bytes),) = self._connection.execute(
                    """SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text,
                              pg_size_bytes(current_setting('wal_segment_size'))"""
                ).fetchall()
                if self._connection.info.parameter_status("server_encoding") == "SQL_ASCII":
                    self._connection.execute("SET LOCAL client_encoding = 'SQL_ASCII'")
                with self._giving_way(table):
                    yield Sight(Snapshot.parse(snapshot), Lsn.parse(position).before_page_header(segment_bytes))

    @contextlib.contextmanager
    def _locked(self, table: Table) -> Iterator[None]:
        """Say of a lock that the block did not get what to do about it."""
        try:
            yield
        except TableLocked as error:
            remedy = "verify it again when that one has ended"
            raise TableLocked(_WANTED, source=self.name, table=str(table), remedy=remedy) from error

    @contextlib.contextmanager
    def _giving_way(self, table: Table) -> Iterator[None]:
        """Cancel what is read in the block once somebody waits for an exclusive lock: others wait behind him."""
        wanted, ended = threading.Event(), threading.Event()

        def look() -> None:
            while not ended.wait(_LOOK_EVERY_SECONDS):
                if wanted_exclusively(self._catalog, table.oid):
                    wanted.set()
                    self._connection.cancel_safe()

        with ThreadPoolExecutor(1, f"verify {table}") as pool:
            pool.submit(look)
            try:
                yield
            except SourceUnreachable as error:
                if not wanted.is_set():
                    raise
                raise TableLocked(error.what) from None
            finally:
                ended.set()

    def flush(self) -> None:
        """Have the server flush, and send, what is written so far, though nobody commits."""
        with self._translation.around():
            self._catalog.execute("SELECT pg_current_xact_id()")

    def uncollected(self, after: Lsn, until: Lsn) -> frozenset[int] | None:
        """The tables that have changed between the end of a log and ``until``, as far as the server has flushed it.

        The slot is looked into, not moved on. Null when there is too much to look at, or a hub streams from it.
        https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-REPLICATION
        """
        quoted = '"' + self._source.publication.replace('"', '""') + '"'
        asked = {"slot": self._source.slot, "until": str(until), "most": _MOST_CHANGES, "publication": quoted}
        with self._translation.around():
            try:
                found = self._catalog.execute(_UNCOLLECTED, {**asked, "after": int(after)}).fetchall()
            except psycopg.errors.ObjectInUse:
                return None
        if any(count >= _MOST_CHANGES for _, count in found):
            return None
        return frozenset(oid for oid, _ in found)


def _relation(published: PublishedTable) -> sql.Composed:
    """A partitioned table has its rows in its partitions; any other is read without what inherits from it."""
    only = sql.SQL("" if published.partitioned else "ONLY ")
    return sql.SQL("{}{}").format(only, sql.Identifier(published.table.schema, published.table.name))
