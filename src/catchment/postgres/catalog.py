"""What the source's catalog says about the tables that a publication shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

from catchment.model.errors import SlotLost, SourceRefused, start_over
from catchment.model.table import Column, ReplicaIdentity, Table
from catchment.postgres.connection import Translation
from catchment.wire.messages import Relation, RelationColumn

# One statement, so that all of it is of one moment. pg_publication_tables would say as much of what is shared, but from
# PostgreSQL 16 on it opens every table, and waits for whoever has one of them locked.
#
# A table is shared if the publication names it or one that it is a part of: as itself, or through the topmost one.
# https://www.postgresql.org/docs/current/sql-createpublication.html
#
# A leaf was made as a partition, and has brought no rows of its own, if the row that ties it to its parent is of the
# transaction that made the table, and a column is as the command that made the table left it: ATTACH changes them all.
_PUBLISHED = """
WITH RECURSIVE publication AS (
    SELECT * FROM pg_publication WHERE pubname = %(publication)s
), named AS (
    SELECT r.prrelid AS oid FROM publication u JOIN pg_publication_rel r ON r.prpubid = u.oid
    UNION
    SELECT c.oid FROM publication u CROSS JOIN pg_class c
    WHERE pg_relation_is_publishable(c.oid)
      AND CASE WHEN NOT u.puballtables THEN {in_schemas}
          WHEN u.pubviaroot THEN NOT c.relispartition ELSE c.relkind <> 'p' END
), part AS (
    SELECT oid, false AS of_another FROM named
    UNION
    SELECT i.inhrelid, true
    FROM part JOIN pg_inherits i ON i.inhparent = part.oid AND NOT i.inhdetachpending
    JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition
), published AS (
    SELECT c.oid, n.nspname, c.relname, c.relkind, c.relreplident, c.relfilenode, c.reltoastrelid, c.relnamespace,
        c.reltuples,
        {attributes} AS attributes, {rowfilter} AS rowfilter, {generated} AS generated
    FROM publication u CROSS JOIN (SELECT oid, bool_or(of_another) AS of_another FROM part GROUP BY oid) p
    JOIN pg_class c ON c.oid = p.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_publication_rel r ON r.prpubid = u.oid AND r.prrelid = c.oid AND NOT {in_schemas}
    WHERE (%(only)s::oid IS NULL OR c.oid = %(only)s)
      AND CASE WHEN u.pubviaroot THEN NOT p.of_another ELSE c.relkind <> 'p' END
), attribute AS (
    SELECT a.* FROM published p JOIN pg_attribute a ON a.attrelid = p.oid
    WHERE a.attnum > 0 AND NOT a.attisdropped
      AND CASE WHEN p.attributes IS NULL THEN a.attgenerated IN ('', p.generated) ELSE a.attnum = ANY (p.attributes) END
), stored AS (  -- the type that stores the value: domains are followed to their base
    SELECT a.attrelid, a.attnum, a.atttypid AS oid, a.atttypmod AS typmod FROM attribute a
    UNION ALL
    SELECT s.attrelid, s.attnum, t.typbasetype, t.typtypmod
    FROM stored s JOIN pg_type t ON t.oid = s.oid WHERE t.typtype = 'd'
), used AS (  -- types of the database's own that values are made of
    SELECT a.attrelid, a.atttypid AS oid FROM attribute a WHERE a.atttypid >= 16384
    UNION
    SELECT u.attrelid, part.oid
    FROM used u JOIN pg_type t ON t.oid = u.oid
    CROSS JOIN LATERAL (
        SELECT t.typbasetype AS oid WHERE t.typtype = 'd'
        UNION ALL SELECT t.typelem WHERE t.typcategory = 'A'
        UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, {multirange})
        UNION ALL SELECT f.atttypid FROM pg_attribute f
                  WHERE t.typtype = 'c' AND f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped
    ) part
    WHERE part.oid >= 16384
), made AS (  -- as a partition
    SELECT i.inhrelid AS oid
    FROM pg_inherits i JOIN pg_attribute s ON s.attrelid = i.inhrelid AND s.attnum = -1 AND s.xmin = i.xmin
    WHERE EXISTS (SELECT FROM pg_attribute u WHERE u.attrelid = i.inhrelid AND u.attnum > 0
                  AND u.xmin = s.xmin AND u.cmin = s.cmin AND u.xmax = 0)
), leaf AS (
    SELECT p.oid AS root, c.oid,
        (SELECT concat(c.relfilenode, string_agg(concat('/', i.xmin), '' ORDER BY i.inhrelid))
         FROM pg_partition_ancestors(c.oid) a JOIN pg_inherits i ON i.inhrelid = a.relid
         WHERE a.relid NOT IN (SELECT above.relid FROM pg_partition_ancestors(p.oid) above)) AS tied,
        (SELECT bool_and(a.relid IN (SELECT m.oid FROM made m) OR a.relid IN (
                SELECT above.relid FROM pg_partition_ancestors(p.oid) above UNION ALL SELECT p.oid))
         FROM pg_partition_ancestors(c.oid) a) AS made
    FROM published p CROSS JOIN LATERAL pg_partition_tree(p.oid) t JOIN pg_class c ON c.oid = t.relid
    WHERE p.relkind = 'p' AND c.relkind <> 'p'
), columns AS (
    SELECT a.attrelid, json_agg(json_build_array(
        a.attnum, a.attname, a.atttypid::bigint, a.atttypmod, NOT a.attnotnull,
        tn.nspname, t.typname, s.typmod, e.extname,
        CASE WHEN a.atthasmissing THEN array_to_string(a.attmissingval, '') END) ORDER BY a.attnum) AS told
    FROM attribute a
    JOIN stored s ON s.attrelid = a.attrelid AND s.attnum = a.attnum
    JOIN pg_type t ON t.oid = s.oid AND t.typtype <> 'd'
    JOIN pg_namespace tn ON tn.oid = t.typnamespace
    LEFT JOIN pg_depend d ON d.classid = 'pg_type'::regclass AND d.deptype = 'e'
         AND d.refclassid = 'pg_extension'::regclass
         AND d.objid = CASE WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN t.typelem ELSE t.oid END
    LEFT JOIN pg_extension e ON e.oid = d.refobjid
    GROUP BY a.attrelid
), types AS (
    SELECT part.attrelid, json_object_agg(part.name, part.version) AS told FROM (
        SELECT u.attrelid, e.oid::text AS name, e.xmin::text AS version
        FROM used u JOIN pg_enum e ON e.enumtypid = u.oid
        UNION ALL
        SELECT u.attrelid, concat('composite ', t.oid),
            string_agg(concat(f.attnum, '/', f.xmin), ' ' ORDER BY f.attnum)
        FROM used u JOIN pg_type t ON t.oid = u.oid AND t.typtype = 'c'
        LEFT JOIN pg_attribute f ON f.attrelid = t.typrelid AND f.attnum > 0
        GROUP BY u.attrelid, t.oid) part
    GROUP BY part.attrelid
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
    coalesce(columns.told, '[]'),
    json_build_object(
        'filenode', p.relfilenode::text,
        'toast', CASE WHEN p.reltoastrelid <> 0 THEN p.reltoastrelid::text
                 WHEN EXISTS (SELECT FROM pg_publication_rel r WHERE r.prrelid = p.oid) THEN 'none' END,
        'attributes', (SELECT json_object_agg(a.attnum, a.xmin::text) FROM pg_attribute a
                       WHERE a.attrelid = p.oid AND a.attnum > 0),
        'entry', (SELECT string_agg(entry.text, ' ' ORDER BY entry.text) FROM (
            SELECT concat(u.oid, '/', u.xmin) AS text FROM pg_publication u WHERE u.pubname = %(publication)s
            UNION ALL
            SELECT concat(r.oid, '/', r.xmin)
            FROM pg_publication u JOIN pg_publication_rel r ON r.prpubid = u.oid
            WHERE u.pubname = %(publication)s AND r.prrelid IN (
                SELECT p.oid UNION ALL SELECT above.relid FROM pg_partition_ancestors(p.oid) above)
            UNION ALL  -- what is shared as a part of another table is not while it is taken away
            SELECT concat(i.inhrelid, '/', i.xmin)
            FROM pg_publication u CROSS JOIN pg_partition_ancestors(p.oid) above
            JOIN pg_inherits i ON i.inhrelid = above.relid
            WHERE u.pubname = %(publication)s AND NOT u.puballtables
            {schema_entries}) entry),
        'leaves', (SELECT json_object_agg(l.oid, l.tied) FROM leaf l WHERE l.root = p.oid),
        'made', (SELECT json_agg(l.oid::text) FROM leaf l WHERE l.root = p.oid AND l.made),
        'types', types.told),
    ARRAY(SELECT DISTINCT a.attname::text FROM leaf l JOIN pg_attribute a ON a.attrelid = l.oid
          WHERE l.root = p.oid AND a.atthasmissing)
FROM published p
LEFT JOIN columns ON columns.attrelid = p.oid
LEFT JOIN types ON types.attrelid = p.oid
ORDER BY p.nspname, p.relname
"""
_IN_SCHEMAS = """EXISTS (
        SELECT FROM pg_publication_namespace s WHERE s.pnpubid = u.oid AND s.pnnspid = c.relnamespace)"""
_SCHEMA_ENTRIES = """
            UNION ALL
            SELECT concat(s.oid, '/', s.xmin)
            FROM pg_publication u JOIN pg_publication_namespace s ON s.pnpubid = u.oid
            WHERE u.pubname = %(publication)s AND s.pnnspid IN (
                SELECT p.relnamespace UNION ALL
                SELECT c.relnamespace FROM pg_partition_ancestors(p.oid) a JOIN pg_class c ON c.oid = a.relid)
            UNION ALL  -- nor is a table while it is moved to another schema
            SELECT concat(d.objid, '/', d.xmin)
            FROM pg_publication u JOIN pg_publication_namespace s ON s.pnpubid = u.oid
            JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = s.pnnspid
            WHERE u.pubname = %(publication)s AND d.classid = 'pg_class'::regclass AND d.objid IN (
                SELECT p.oid UNION ALL SELECT above.relid FROM pg_partition_ancestors(p.oid) above)"""


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What the catalog shows of a table beside its shape, so that a change without a trace in the stream is seen.

    A row's ``xmin`` is another one after every change. ``filenode``: where the rows are; ``toast``: its TOAST table,
    which ALTER TABLE replaces when it rewrites, but not VACUUM FULL, CLUSTER or TRUNCATE: empty where there is none to
    tell them apart, ``none`` where there is none but the table is published by its name, so that it cannot be made
    unlogged for a while. ``attributes``: the ``xmin`` of each attribute ever added, by ``attnum``. ``entry``: how the
    publication came to share the table, with its options, column list and row filter. ``leaves``: by oid, the
    filenodes of a partitioned table's partitions and what ties them to it; ``made``: those that were made as
    partitions, rather than attached. ``types``: what the columns' enums (each label) and composites are made of.
    https://www.postgresql.org/docs/current/catalogs.html
    """

    filenode: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    entry: str = ""
    leaves: Mapping[str, str] = field(default_factory=dict)
    made: tuple[str, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    toast: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Fingerprint:
        """Read what JSON has made of one; what is null there is empty."""
        given = {name: part for name, part in value.items() if part is not None}
        return cls(**{**given, "made": tuple(given.get("made", ()))})


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table of the publication as the catalog has it now.

    ``relation`` is the Relation message that the stream would send for this shape: the catalog is believed about a
    stretch of the stream only where the two are equal. ``row_filter`` is the publication's WHERE, if any.
    ``partitioned``: a partitioned table published as itself, whose rows are in its partitions. ``estimated_rows``: the
    planner's estimate, null before the first ANALYZE. ``unread_defaults``: columns of a partitioned table in which old
    rows have a default that only its partitions know.
    """

    table: Table
    relation: Relation
    row_filter: str | None
    partitioned: bool
    estimated_rows: int | None
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    unread_defaults: frozenset[str] = frozenset()


def published_tables(
    connection: psycopg.Connection, publication: str, translation: Translation, only: int | None = None
) -> dict[int, PublishedTable]:
    """All tables of the publication by oid, or ``only`` the one; none when it does not exist.

    Raises the translation's errors.
    """
    version = connection.info.server_version
    lists = version >= 150000
    query = _PUBLISHED.format(
        in_schemas=_IN_SCHEMAS if lists else "false",
        attributes="r.prattrs::int2[]" if lists else "NULL::int2[]",
        rowfilter="pg_get_expr(r.prqual, r.prrelid)" if lists else "NULL::text",
        # Those that are stored, if asked for; in a list they stand only if they are shared.
        generated="CASE u.pubgencols WHEN 's' THEN 's' ELSE '' END" if version >= 180000 else "''",
        multirange="r.rngmultitypid" if version >= 140000 else "NULL",
        schema_entries=_SCHEMA_ENTRIES if lists else "",
    )
    with translation.around():
        rows = connection.execute(query, {"publication": publication, "only": only}).fetchall()
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
    fingerprint: dict[str, Any],
    unread_defaults: list[str],
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
            missing=missing,
        )
        for number, column, _, _, nullable, type_schema, type_name, stored_typmod, extension, missing in attributes
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
        fingerprint=Fingerprint.from_json(fingerprint),
        unread_defaults=frozenset(unread_defaults),
    )
