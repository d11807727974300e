"""The key of a shadow: one index that is built in the end costs less than an entry of each row.

Until something has to be found by it, rows of its refill are put one behind the other. Some may be told twice: a
collector was killed while it told them, or they were changed while a cycle read other blocks, to which they moved. They
are the same then: of a change between the two the stream would have told, and with the first change a shadow gets its
key. docs/decisions/0021-a-first-load-builds-its-keys-late.md
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from catchment.model.errors import TableMisshapen
from catchment.postgres.connection import Translation
from catchment.targets.ods import reshape
from catchment.targets.ods.refusal import Place, Refusal, refusals
from catchment.targets.ods.session import ALL_JOINS, BY_INDEX

# Only of rows whose key is there several times the whole is compared.
_DROP_REPEATED = """
DELETE FROM {shadow} WHERE ctid = ANY (ARRAY(
    SELECT told.ctid
    FROM (SELECT s.ctid, row_number() OVER (PARTITION BY {key}, ROW(s.*)::text) AS time FROM {shadow} s
          WHERE s.ctid = ANY (ARRAY(
              SELECT several.ctid
              FROM (SELECT s.ctid, count(*) OVER (PARTITION BY {key}) AS times FROM {shadow} s) several
              WHERE several.times > 1))) told
    WHERE told.time > 1))
"""


def add_key(connection: psycopg.Connection, source: str, place: Place, translation: Translation) -> bool:
    """Give a shadow its key; returns whether rows that were told twice had to be removed for it.

    Raises Refusal when two of its rows, which are not the same, have the same one there.
    """
    with refusals(place, translation):
        if _added(connection, place):
            return False
        key = sql.SQL(", ").join(sql.Identifier("s", name) for name in place.table.key)
        shadow = place.relation.identifier
        connection.execute(
            sql.SQL("{all_joins}; " + _DROP_REPEATED + "; {by_index}").format(
                all_joins=ALL_JOINS, shadow=shadow, key=key, by_index=BY_INDEX
            )
        )
        if _added(connection, place):
            return True
    raise Refusal(
        place,
        TableMisshapen(
            "several of its rows have one key in the ODS",
            source=source,
            table=str(place.table),
            remedy=f"`catchment check {source}` tells what the ODS compares otherwise, or what the publication leaves "
            f"out; then run `catchment backfill {source} {place.table}`",
        ),
    )


def _added(connection: psycopg.Connection, place: Place) -> bool:
    try:
        with connection.transaction():
            reshape.add_key(connection, place.relation, place.table)
    except psycopg.errors.UniqueViolation:
        return False
    return True
