"""Which type a source's column has in the ODS."""

from __future__ import annotations

import psycopg

from catchment.model.table import Table

# One row per column asked for. What depends on the source's own catalog (enum, composite, reg*, aclitem, and domains
# inside arrays), what the ODS does not know, and what has no input is text.
_ODS_TYPES = """
SELECT CASE WHEN ordered OR NOT asked.in_key THEN format_type(found.oid, asked.typmod) END
FROM unnest(%(schemas)s::text[], %(names)s::text[], %(typmods)s::int4[], %(extensions)s::text[], %(in_key)s::bool[])
     WITH ORDINALITY AS asked (schema, name, typmod, extension, in_key, position)
LEFT JOIN LATERAL (
    SELECT type.oid, item.oid AS item, item.typtype
    FROM pg_type type
    LEFT JOIN pg_type element ON element.typarray = type.oid
    JOIN pg_type item ON item.oid = coalesce(element.oid, type.oid)
    WHERE type.typname = asked.name AND item.typtype IN ('b', 'r', 'm', 'e')
      AND CASE WHEN asked.extension IS NULL
          THEN asked.schema = 'pg_catalog' AND type.typnamespace = 'pg_catalog'::regnamespace
           AND item.typname !~ '^(reg|pg_ndistinct|pg_dependencies|pg_mcv_list|pg_brin_)'
           AND item.typname <> ALL ('{aclitem,pg_node_tree,gtsvector}')
          ELSE EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
                       WHERE d.classid = 'pg_type'::regclass AND d.objid = item.oid AND d.deptype = 'e'
                         AND d.refclassid = 'pg_extension'::regclass AND e.extname = asked.extension)
          END
    LIMIT 1
) found ON true
LEFT JOIN LATERAL (
    SELECT EXISTS (
        SELECT FROM pg_opclass c
        WHERE c.opcdefault AND c.opcmethod = (SELECT oid FROM pg_am WHERE amname = 'btree')
          AND (c.opcintype = found.item OR c.opcintype = CASE found.typtype WHEN 'r' THEN 'anyrange'::regtype
               WHEN 'm' THEN 'anymultirange'::regtype WHEN 'e' THEN 'anyenum'::regtype END
               OR EXISTS (SELECT FROM pg_cast WHERE castsource = found.item AND casttarget = c.opcintype
                          AND castmethod = 'b' AND castcontext = 'i'))
    ) AS ordered
) key ON true
ORDER BY asked.position
"""


def ods_types(connection: psycopg.Connection, table: Table) -> list[str]:
    """The types of the table's columns as SQL text that the ODS itself has printed.

    A type that cannot be in a primary key is ``text`` there.
    https://www.postgresql.org/docs/current/catalog-pg-type.html
    """
    asked = {
        "schemas": [column.type_schema for column in table.columns],
        "names": [column.type_name for column in table.columns],
        "typmods": [column.typmod for column in table.columns],
        "extensions": [column.type_extension for column in table.columns],
        "in_key": [column.name in table.key for column in table.columns],
    }
    return [name or "text" for (name,) in connection.execute(_ODS_TYPES, asked)]
