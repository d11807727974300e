"""Preflight of the tables that a publication shares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from catchment.model.table import ReplicaIdentity, Table
from catchment.postgres.catalog import PublishedTable
from catchment.postgres.finding import Finding
from catchment.postgres.source import Source

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

# PostgreSQL looks at the replica identity of the table that holds the row: of a partition, also where its changes are
# published under the name of the root. Columns of an index that are only INCLUDEd identify nothing.
_IDENTITIES = """
WITH holding AS (
    SELECT p.oid AS published, coalesce(leaf.relid, p.oid) AS oid
    FROM unnest(%s::oid[]) AS p (oid)
    LEFT JOIN LATERAL (SELECT relid FROM pg_partition_tree(p.oid) WHERE isleaf) AS leaf ON true
), usable AS (
    SELECT i.indrelid, i.indexrelid, i.indisprimary, i.indisreplident,
        array_agg(a.attname::text ORDER BY k.place) AS columns, bool_and(a.attnotnull) AS filled
    FROM pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
    WHERE i.indrelid IN (SELECT oid FROM holding) AND k.place <= i.indnkeyatts
      AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
    GROUP BY i.indrelid, i.indexrelid, i.indisprimary, i.indisreplident
)
SELECT h.published::bigint AS published, n.nspname AS schema, c.relname AS name, c.relreplident::text AS identity,
    CASE c.relreplident
        WHEN 'd' THEN (SELECT u.columns FROM usable u WHERE u.indrelid = c.oid AND u.indisprimary)
        WHEN 'i' THEN (SELECT u.columns FROM usable u WHERE u.indrelid = c.oid AND u.indisreplident)
        WHEN 'f' THEN (SELECT array_agg(a.attname::text) FROM pg_attribute a
                       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '')
    END AS columns,
    EXISTS (SELECT FROM usable u WHERE u.indrelid = c.oid AND u.indisprimary) AS has_primary_key,
    (SELECT i.relname FROM usable u JOIN pg_class i ON i.oid = u.indexrelid
     WHERE u.indrelid = c.oid AND u.filled ORDER BY i.relname LIMIT 1) AS unique_index
FROM holding h JOIN pg_class c ON c.oid = h.oid JOIN pg_namespace n ON n.oid = c.relnamespace
ORDER BY n.nspname, c.relname
"""


@dataclass(frozen=True, slots=True)
class _Access:
    oid: int
    role: str
    may_enter: bool
    readable: list[str]
    rows_hidden: bool


@dataclass(frozen=True, slots=True)
class _Identity:
    """What PostgreSQL will send of an old row: ``columns``, null for nothing."""

    published: int
    schema: str
    name: str
    identity: str
    columns: list[str] | None
    has_primary_key: bool
    unique_index: str | None


def check_tables(
    connection: psycopg.Connection, source: Source, published: Mapping[int, PublishedTable]
) -> Iterator[Finding]:
    """Whether our role can read each of them and whether updates and deletes can be followed."""
    yield from _access(connection, source, published)
    yield from _identities(connection, source, published)
    for shared in published.values():
        if not shared.table.key and shared.table.identity is ReplicaIdentity.FULL:
            what = "it has no key: it is read whole in one cycle, and its rows are matched whole"
            remedy = f"ALTER TABLE {_quoted(shared.table.schema, shared.table.name)} ADD PRIMARY KEY (…);"
            yield Finding("warning", _where(source, shared.table), what, remedy)


def _access(
    connection: psycopg.Connection, source: Source, published: Mapping[int, PublishedTable]
) -> Iterator[Finding]:
    closed: set[str] = set()
    with connection.cursor(row_factory=class_row(_Access)) as cursor:
        for access in cursor.execute(_ACCESS, (list(published),)).fetchall():
            table = published[access.oid].table
            name = _quoted(table.schema, table.name)
            if not access.may_enter and table.schema not in closed:
                closed.add(table.schema)
                remedy = f"GRANT USAGE ON SCHEMA {_quoted(table.schema)} TO {access.role};"
                what = f"privilege USAGE on schema {table.schema} is missing"
                yield Finding("error", f"source {source.name}", what, remedy)
            if not {column.name for column in table.columns}.issubset(access.readable):
                remedy = f"GRANT SELECT ON {name} TO {access.role};"
                yield Finding("error", _where(source, table), "privilege SELECT is missing", remedy)
            if access.rows_hidden:
                what = f"row-level security hides rows from role {access.role}"
                yield Finding("error", _where(source, table), what, f"ALTER ROLE {access.role} BYPASSRLS;")


def _identities(
    connection: psycopg.Connection, source: Source, published: Mapping[int, PublishedTable]
) -> Iterator[Finding]:
    """Tables of which PostgreSQL refuses updates and deletes, to whoever makes them, once they are published.

    https://www.postgresql.org/docs/current/logical-replication-publication.html#LOGICAL-REPLICATION-PUBLICATION-REPLICA-IDENTITY
    """
    changes = connection.execute(
        "SELECT FROM pg_publication WHERE pubname = %s AND (pubupdate OR pubdelete)", (source.publication,)
    )
    if changes.fetchone() is None:
        return
    with connection.cursor(row_factory=class_row(_Identity)) as cursor:
        for held in cursor.execute(_IDENTITIES, (list(published),)).fetchall():
            shared = published[held.published].table
            left_out = sorted(set(held.columns or ()) - {column.name for column in shared.columns})
            if held.columns is None:
                what = "its replica identity sends no old key: PostgreSQL refuses updates and deletes of it"
                yield Finding("warning", f"source {source.name}, table {held.schema}.{held.name}", what, _mended(held))
            elif left_out:
                what = (
                    f"the publication leaves out {', '.join(left_out)} of its replica identity: "
                    "PostgreSQL refuses updates and deletes of it"
                )
                yield Finding("warning", _where(source, shared), what, "add what is missing to its list of columns")


def _mended(held: _Identity) -> str:
    table = _quoted(held.schema, held.name)
    if held.has_primary_key:
        return f"ALTER TABLE {table} REPLICA IDENTITY DEFAULT;"
    if held.unique_index:
        return f"ALTER TABLE {table} REPLICA IDENTITY USING INDEX {_quoted(held.unique_index)};"
    return f"ALTER TABLE {table} ADD PRIMARY KEY (…); or ALTER TABLE {table} REPLICA IDENTITY FULL;"


def _where(source: Source, table: Table) -> str:
    return f"source {source.name}, table {table}"


def _quoted(*names: str) -> str:
    return sql.Identifier(*names).as_string(None)
