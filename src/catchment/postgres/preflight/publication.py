"""Preflight of a publication: the data contract of the team that owns the source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from catchment.postgres.finding import Check, Finding, named
from catchment.postgres.preflight.asking import quoted
from catchment.postgres.source import Source

MISSING = Check(
    "publication",
    "error",
    "publication {publication} does not exist",
    "it says what is shared",
    "run what `catchment source sql {source}` prints, or CREATE PUBLICATION {name} FOR TABLE …;",
)
EMPTY = Check(
    "publication_empty",
    "error",
    "publication {publication} shares no table",
    "there is nothing to collect",
    "ALTER PUBLICATION {name} ADD TABLE …;",
)
SOME_OPERATIONS = Check(
    "publication_operations",
    "warning",
    "publication {publication} leaves out {operations}",
    "targets will differ from the source",
    "ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate');",
)
ALL_TABLES = Check(
    "publication_all_tables",
    "notice",
    "publication {publication} is FOR ALL TABLES",
    "tables made later are shared too, and those without a primary key refuse updates and deletes from then on",
    "to share less, name tables or schemas: before the first run, since a publication that is made anew starts over",
)
LEAVES = Check(
    "publication_partitions",
    "notice",
    "{count} partitions are shared as tables of their own: {tables}",
    "each partition is a table in the targets, and one that is attached or made later is a new one",
    "ALTER PUBLICATION {name} SET (publish_via_partition_root = true);",
)
UNLOGGED = Check(
    "unlogged_table",
    "warning",
    "it is unlogged, so it is not shared with the others",
    "its changes are not in the WAL",
    "ALTER TABLE {table} SET LOGGED;",
)
FOREIGN = Check(
    "foreign_table",
    "notice",
    "it is a foreign table, so it is not shared with the others",
    "its rows are in another database",
    "make that database a source too",
)
PARTITION_WITHOUT_WAL = Check(
    "partition_not_logged",
    "warning",
    "its partition {partition} is {kind}",
    "a backfill reads the rows of that partition, but their changes are never streamed",
    "{remedy}",
)

_PARTITIONS = """
SELECT n.nspname || '.' || c.relname FROM pg_publication_tables p
JOIN pg_namespace n ON n.nspname = p.schemaname JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
WHERE p.pubname = %s AND c.relispartition ORDER BY 1
"""

# A publication of a whole schema, or of all, leaves these out without a word. Where tables are named one by one,
# PostgreSQL refuses them. Publications of schemas came with PostgreSQL 15.
_NOT_SHARED = """
SELECT n.nspname AS schema, c.relname AS name, c.relkind::text AS kind
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (c.relkind = 'f' OR c.relkind = 'r' AND c.relpersistence = 'u') AND NOT c.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_'
  AND EXISTS (SELECT FROM pg_publication p WHERE p.pubname = %(publication)s AND (p.puballtables {in_schemas}))
ORDER BY n.nspname, c.relname
"""
_IN_SCHEMAS = """
    OR EXISTS (SELECT FROM pg_publication_namespace s WHERE s.pnpubid = p.oid AND s.pnnspid = n.oid)
"""

_DEAD_LEAVES = """
SELECT p.schemaname || '.' || p.tablename AS root, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind
FROM pg_publication_tables p
JOIN pg_namespace pn ON pn.nspname = p.schemaname
JOIN pg_class root ON root.relnamespace = pn.oid AND root.relname = p.tablename AND root.relkind = 'p'
CROSS JOIN LATERAL pg_partition_tree(root.oid) t
JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.pubname = %s AND t.isleaf AND (c.relkind = 'f' OR c.relkind = 'r' AND c.relpersistence = 'u')
ORDER BY 1, 2, 3
"""


@dataclass(frozen=True, slots=True)
class _Publication:
    all_tables: bool
    publishes: list[bool]
    shares_tables: bool


def check_publication(connection: psycopg.Connection, source: Source, where: str) -> Iterator[Finding]:
    """https://www.postgresql.org/docs/current/logical-replication-publication.html"""
    said = {"publication": source.publication, "name": quoted(source.publication), "source": source.name}
    with connection.cursor(row_factory=class_row(_Publication)) as cursor:
        publication = cursor.execute(
            """SELECT puballtables AS all_tables, ARRAY[pubinsert, pubupdate, pubdelete, pubtruncate] AS publishes,
                   EXISTS (SELECT FROM pg_publication_tables WHERE pubname = p.pubname) AS shares_tables
               FROM pg_publication p WHERE pubname = %s""",
            (source.publication,),
        ).fetchone()
    if publication is None:
        yield MISSING.found(where, **said)
        return
    if not publication.shares_tables:
        yield EMPTY.found(where, **said)
    if not all(publication.publishes):
        operations = zip(("insert", "update", "delete", "truncate"), publication.publishes, strict=True)
        left_out = ", ".join(operation for operation, published in operations if not published)
        yield SOME_OPERATIONS.found(where, operations=left_out, **said)
    if publication.all_tables:
        yield ALL_TABLES.found(where, **said)
    leaves = [name for (name,) in connection.execute(_PARTITIONS, (source.publication,))]
    if leaves:
        yield LEAVES.found(where, count=len(leaves), tables=named(leaves), **said)
    yield from _not_shared(connection, source, where)


def _not_shared(connection: psycopg.Connection, source: Source, where: str) -> Iterator[Finding]:
    query = _NOT_SHARED.format(in_schemas=_IN_SCHEMAS if connection.info.server_version >= 150_000 else "")
    for schema, name, kind in connection.execute(query, {"publication": source.publication}):
        check = FOREIGN if kind == "f" else UNLOGGED
        yield check.found(f"{where}, table {schema}.{name}", table=quoted(schema, name))
    for root, schema, name, kind in connection.execute(_DEAD_LEAVES, (source.publication,)):
        table = quoted(schema, name)
        yield PARTITION_WITHOUT_WAL.found(
            f"{where}, table {root}",
            partition=f"{schema}.{name}",
            kind="a foreign table" if kind == "f" else "unlogged",
            remedy="detach it" if kind == "f" else f"ALTER TABLE {table} SET LOGGED;",
        )
