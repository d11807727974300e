"""Preflight of the tables that a publication shares: may they be read, and what of them is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from catchment.model.table import ReplicaIdentity, Table
from catchment.postgres.catalog import PublishedTable
from catchment.postgres.finding import Check, Finding, named
from catchment.postgres.preflight.asking import quoted
from catchment.postgres.source import Source

NO_USAGE = Check(
    "usage",
    "error",
    "privilege USAGE on schema {schema} is missing",
    "its tables cannot be read",
    "GRANT USAGE ON SCHEMA {name} TO {role};",
)
NO_SELECT = Check(
    "select",
    "error",
    "privilege SELECT is missing",
    "a backfill cannot read it",
    "GRANT SELECT{columns} ON {table} TO {role};",
)
ROWS_HIDDEN = Check(
    "row_security",
    "error",
    "row-level security hides rows from role {role}",
    "a backfill would miss rows that the stream tells",
    "ALTER ROLE {role} BYPASSRLS;",
)
KEYLESS = Check(
    "keyless",
    "warning",
    "it has no key",
    "it is read whole in one cycle, however long that takes, and its rows are matched whole",
    "ALTER TABLE {table} ADD PRIMARY KEY (…);",
)
COLUMNS_LEFT_OUT = Check(
    "columns",
    "notice",
    "columns that the publication leaves out: {columns}",
    "they never leave the source",
)
ROW_FILTER = Check(
    "rows",
    "notice",
    "only rows WHERE {row_filter} are shared",
    "a row that no longer matches is deleted in the targets",
)
GENERATED = Check(
    "generated_columns",
    "notice",
    "generated columns that are not shared: {columns}",
    "{reason}",
    "{remedy}",
)

_ACCESS = """
SELECT c.oid::bigint AS oid, quote_ident(current_user) AS role,
    has_schema_privilege(c.relnamespace, 'USAGE') AS may_enter,
    ARRAY(
        SELECT a.attname::text FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          AND has_column_privilege(c.oid, a.attnum, 'SELECT')
    ) AS readable,
    row_security_active(c.oid) AS rows_hidden
FROM pg_class c WHERE c.oid = ANY (%s::oid[])
"""

_COLUMNS = """
SELECT a.attrelid::bigint AS oid, a.attname::text AS name, a.attgenerated::text AS generated
FROM pg_attribute a WHERE a.attrelid = ANY (%s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
"""


@dataclass(frozen=True, slots=True)
class _Access:
    oid: int
    role: str
    may_enter: bool
    readable: list[str]
    rows_hidden: bool


@dataclass(frozen=True, slots=True)
class _Column:
    """``generated``: ``s`` stored, ``v`` virtual, else empty."""

    oid: int
    name: str
    generated: str


def check_tables(
    connection: psycopg.Connection, source: Source, published: Mapping[int, PublishedTable]
) -> Iterator[Finding]:
    """Whether our role can read each of them, and what of each is left out."""
    columns = _columns(connection, published)
    yield from _access(connection, source, published, columns)
    for oid, shared in published.items():
        table = shared.table
        if not table.key and table.identity in (ReplicaIdentity.FULL, ReplicaIdentity.DEFAULT):
            yield KEYLESS.found(place(source, table), table=quoted(table.schema, table.name))
        yield from _left_out(connection, source, shared, columns[oid])


def _columns(connection: psycopg.Connection, published: Mapping[int, PublishedTable]) -> dict[int, list[_Column]]:
    columns: dict[int, list[_Column]] = {oid: [] for oid in published}
    with connection.cursor(row_factory=class_row(_Column)) as cursor:
        for column in cursor.execute(_COLUMNS, (list(published),)):
            columns[column.oid].append(column)
    return columns


def _access(
    connection: psycopg.Connection,
    source: Source,
    published: Mapping[int, PublishedTable],
    columns: Mapping[int, list[_Column]],
) -> Iterator[Finding]:
    closed: set[str] = set()
    with connection.cursor(row_factory=class_row(_Access)) as cursor:
        for access in cursor.execute(_ACCESS, (list(published),)).fetchall():
            table = published[access.oid].table
            if not access.may_enter and table.schema not in closed:
                closed.add(table.schema)
                where = f"source {source.name}"
                yield NO_USAGE.found(where, schema=table.schema, name=quoted(table.schema), role=access.role)
            shared = [column.name for column in table.columns]
            if not set(shared).issubset(access.readable):
                # What a team leaves out of its publication it does not want to be read either.
                all_shared = {column.name for column in columns[access.oid] if not column.generated}.issubset(shared)
                listed = "" if all_shared else f" ({', '.join(map(quoted, shared))})"
                name = quoted(table.schema, table.name)
                yield NO_SELECT.found(place(source, table), columns=listed, table=name, role=access.role)
            if access.rows_hidden:
                yield ROWS_HIDDEN.found(place(source, table), role=access.role)


def _left_out(
    connection: psycopg.Connection, source: Source, published: PublishedTable, columns: list[_Column]
) -> Iterator[Finding]:
    """https://www.postgresql.org/docs/current/logical-replication-gencols.html"""
    where = place(source, published.table)
    shared = {column.name for column in published.table.columns}
    plain = [column.name for column in columns if not column.generated and column.name not in shared]
    generated = [column for column in columns if column.generated and column.name not in shared]
    if plain:
        yield COLUMNS_LEFT_OUT.found(where, columns=named(plain))
    if generated and not plain:
        stored = all(column.generated == "s" for column in generated)
        reason, remedy = "PostgreSQL does not send virtual columns", "compute them in a view in the ODS"
        if stored and connection.info.server_version >= 180_000:
            reason = "PostgreSQL sends them only if it is told to"
            remedy = f"ALTER PUBLICATION {quoted(source.publication)} SET (publish_generated_columns = stored);"
        elif stored:
            reason = "PostgreSQL sends them from version 18 on"
        names = named([column.name for column in generated])
        yield GENERATED.found(where, columns=names, reason=reason, remedy=remedy)
    if published.row_filter:
        row_filter = published.row_filter
        yield ROW_FILTER.found(where, row_filter=row_filter if row_filter.startswith("(") else f"({row_filter})")


def place(source: Source, table: Table) -> str:
    """Where a finding about a table is."""
    return f"source {source.name}, table {table}"
