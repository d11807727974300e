"""What the source's catalog says about the tables that a publication shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from catchment.model.errors import SlotLost, SourceRefused, start_over
from catchment.model.table import Column, ReplicaIdentity, Table
from catchment.postgres.connection import Translation
from catchment.wire.messages import Relation, RelationColumn

# One statement, so that all of it is of one moment. pg_publication_tables has column lists and row filters from
# PostgreSQL 15 on: https://www.postgresql.org/docs/current/view-pg-publication-tables.html
_PUBLISHED = """
WITH RECURSIVE published AS (
    SELECT c.oid, n.nspname, c.relname, c.relkind, c.relreplident, c.relfilenode,
        c.reltuples,
        {attnames} AS attnames, {rowfilter} AS rowfilter
    FROM pg_publication_tables p
    JOIN pg_namespace n ON n.nspname = p.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
    WHERE p.pubname = %(publication)s
), attribute AS (
    SELECT a.* FROM published p JOIN pg_attribute a ON a.attrelid = p.oid
    WHERE a.attnum > 0 AND NOT a.attisdropped
      AND (p.attnames IS NULL OR a.attname = ANY (p.attnames)) AND (a.attgenerated = '' OR {generated})
), stored AS (  -- the type that stores the value: domains are followed to their base
    SELECT a.attrelid, a.attnum, a.atttypid AS oid, a.atttypmod AS typmod FROM attribute a
    UNION ALL
    SELECT s.attrelid, s.attnum, t.typbasetype, t.typtypmod
    FROM stored s JOIN pg_type t ON t.oid = s.oid WHERE t.typtype = 'd'
)
SELECT p.oid::bigint, p.nspname, p.relname, p.relkind, p.relreplident, p.relfilenode::bigint, p.rowfilter,
    p.reltuples::bigint,
    (SELECT array_agg(k.attname ORDER BY x.place)
     FROM pg_index i
     CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS x (attnum, place)
     JOIN pg_attribute k ON k.attrelid = i.indrelid AND k.attnum = x.attnum
     WHERE i.indrelid = p.oid AND x.place <= i.indnkeyatts AND i.indisvalid
       AND CASE p.relreplident WHEN 'i' THEN i.indisreplident WHEN 'n' THEN false
           ELSE i.indisprimary AND i.indimmediate END),
    (SELECT coalesce(json_agg(json_build_array(
            a.attnum, a.attname, a.atttypid::bigint, a.atttypmod, NOT a.attnotnull,
            tn.nspname, t.typname, s.typmod, e.extname) ORDER BY a.attnum), '[]')
     FROM attribute a
     JOIN stored s ON s.attrelid = a.attrelid AND s.attnum = a.attnum
     JOIN pg_type t ON t.oid = s.oid AND t.typtype <> 'd'
     JOIN pg_namespace tn ON tn.oid = t.typnamespace
     LEFT JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.deptype = 'e'
          AND d.refclassid = 'pg_extension'::regclass
          AND d.objid = CASE WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN t.typelem ELSE t.oid END
     LEFT JOIN pg_extension e ON e.oid = d.refobjid
     WHERE a.attrelid = p.oid)
FROM published p
ORDER BY p.nspname, p.relname
"""


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table of the publication as the catalog has it now.

    ``relation`` is the Relation message that the stream would send for this shape: the catalog is believed about a
    stretch of the stream only where the two are equal. ``row_filter`` is the publication's WHERE, if any.
    ``partitioned``: a partitioned table published as itself, whose rows are in its partitions. ``estimated_rows``: the
    planner's estimate, null before the first ANALYZE.
    """

    table: Table
    relation: Relation
    row_filter: str | None
    partitioned: bool
    estimated_rows: int | None


def published_tables(
    connection: psycopg.Connection, publication: str, translation: Translation
) -> dict[int, PublishedTable]:
    """All tables of the publication by oid; none when it does not exist. Raises the translation's errors."""
    version = connection.info.server_version
    lists = version >= 150000
    query = _PUBLISHED.format(
        attnames="p.attnames" if lists else "NULL::name[]",
        rowfilter="p.rowfilter" if lists else "NULL::text",
        # Generated columns are published from PostgreSQL 18 on, if asked for; older servers list them all the same.
        generated="true" if version >= 180000 else "false",
    )
    with translation.around():
        rows = connection.execute(query, {"publication": publication}).fetchall()
    return {row[0]: _published(*row) for row in rows}


def verify_publication(
    connection: psycopg.Connection, publication: str, translation: Translation, known: int | None
) -> int:
    """The publication's oid. Raises SourceRefused when there is none, SlotLost when it is not the ``known`` one.

    What changes while a publication is missing is not streamed: up to PostgreSQL 17 the stream ends there for good,
    later servers skip it without an error.
    https://www.postgresql.org/docs/current/logical-replication-publication.html
    """
    source = translation.source
    with translation.around():
        query = "SELECT oid::bigint FROM pg_publication WHERE pubname = %s"
        found = connection.execute(query, (publication,)).fetchone()
    if found is None:
        raise SourceRefused(
            f"publication {publication} does not exist",
            source=source,
            remedy=f"correct its name in catchment.toml, or run what `catchment source sql {source}` prints",
        )
    if known not in (None, found[0]):
        what = f"publication {publication} was dropped and made again: changes in between are not in the stream"
        raise SlotLost(what, source=source, remedy=start_over(source))
    return int(found[0])


def _published(
    oid: int,
    schema: str,
    name: str,
    kind: str,
    identity: str,
    filenode: int,
    row_filter: str | None,
    estimated_rows: int,
    key: list[str] | None,
    attributes: list[list[Any]],
) -> PublishedTable:
    replica_identity = ReplicaIdentity(identity)
    in_key = {attribute[1] for attribute in attributes} if replica_identity is ReplicaIdentity.FULL else set(key or ())
    columns = tuple(
        Column(
            number=number,
            name=column,
            type_schema=type_schema,
            type_name=type_name,
            typmod=stored_typmod,
            nullable=nullable,
            type_extension=extension,
        )
        for number, column, _, _, nullable, type_schema, type_name, stored_typmod, extension in attributes
    )
    relation_columns = tuple(
        RelationColumn(name=column, type_oid=type_oid, typmod=typmod, in_key=column in in_key)
        for _, column, type_oid, typmod, *_ in attributes
    )
    names = {column.name for column in columns}
    table = Table(
        oid=oid,
        schema=schema,
        name=name,
        columns=columns,
        key=tuple(key) if key and names.issuperset(key) else (),
        identity=replica_identity,
        filenode=filenode,
    )
    relation = Relation(oid=oid, schema=schema, name=name, identity=replica_identity, columns=relation_columns)
    return PublishedTable(
        table=table,
        relation=relation,
        row_filter=row_filter,
        partitioned=kind == "p",
        estimated_rows=estimated_rows if estimated_rows >= 0 else None,
    )
