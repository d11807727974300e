"""Preflight of replica identities: whether PostgreSQL lets published tables be updated at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from catchment.postgres.catalog import PublishedTable
from catchment.postgres.finding import Check, Finding
from catchment.postgres.preflight.asking import quoted
from catchment.postgres.preflight.tables import place
from catchment.postgres.source import Source

_REFUSED = "PostgreSQL refuses updates and deletes of it, whoever makes them"

NO_IDENTITY = Check("replica_identity", "warning", "its replica identity sends no old key", _REFUSED, "{remedy}")
IDENTITY_LEFT_OUT = Check(
    "replica_identity_columns",
    "warning",
    "the publication leaves out {columns} of its replica identity",
    _REFUSED,
    "add what is missing to its list of columns",
)
FILTER_OUTSIDE_IDENTITY = Check(
    "replica_identity_filter",
    "warning",
    "the row filter needs {columns}, not in its replica identity",
    _REFUSED,
    "ALTER TABLE {table} REPLICA IDENTITY FULL; or filter by columns of the identity",
)

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
WHERE c.relkind = 'r'
ORDER BY n.nspname, c.relname
"""

# The filter is kept as a tree; the columns in it are found by their numbers.
_FILTERED = """
SELECT r.prrelid::bigint, array_agg(DISTINCT a.attname::text ORDER BY a.attname::text)
FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
CROSS JOIN LATERAL regexp_matches(r.prqual::text, ':varattno (\\d+)', 'g') AS used (number)
JOIN pg_attribute a ON a.attrelid = r.prrelid AND a.attnum = used.number[1]::int2
WHERE p.pubname = %s GROUP BY r.prrelid
"""


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


def check_identities(
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
    filtered: dict[int, list[str]] = {}
    if connection.info.server_version >= 150_000:
        filtered = dict(connection.execute(_FILTERED, (source.publication,)).fetchall())
    with connection.cursor(row_factory=class_row(_Identity)) as cursor:
        for held in cursor.execute(_IDENTITIES, (list(published),)).fetchall():
            shared = published[held.published].table
            names = set(held.columns or ())
            missing = sorted(names - {column.name for column in shared.columns})
            outside = sorted(set(filtered.get(held.published, ())) - names)
            if held.columns is None:
                yield NO_IDENTITY.found(f"source {source.name}, table {held.schema}.{held.name}", remedy=_remedy(held))
                continue
            if missing:
                yield IDENTITY_LEFT_OUT.found(place(source, shared), columns=", ".join(missing))
            if outside:
                table = quoted(held.schema, held.name)
                yield FILTER_OUTSIDE_IDENTITY.found(place(source, shared), columns=", ".join(outside), table=table)


def _remedy(held: _Identity) -> str:
    table = quoted(held.schema, held.name)
    if held.has_primary_key:
        return f"ALTER TABLE {table} REPLICA IDENTITY DEFAULT;"
    if held.unique_index:
        return f"ALTER TABLE {table} REPLICA IDENTITY USING INDEX {quoted(held.unique_index)};"
    return f"ALTER TABLE {table} ADD PRIMARY KEY (…); or ALTER TABLE {table} REPLICA IDENTITY FULL;"
