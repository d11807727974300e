"""Tables of the ODS that somebody altered: found by comparing its catalog with what Catchment made."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import psycopg

from catchment.model.errors import TableMisshapen
from catchment.model.table import Table
from catchment.targets.ods import shapes
from catchment.targets.ods.columns import ods_types
from catchment.targets.ods.naming import Relation
from catchment.targets.ods.registry import SHADOW, Connected, Entry, Registry, Stored
from catchment.targets.ods.session import OdsColumn, read_columns

_LOOKS = """c.oid, c.relpersistence,
    (SELECT i.indkey FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary),
    (SELECT string_agg(format('%%s %%s %%s', a.attname, a.atttypid, a.atttypmod), ',' ORDER BY a.attnum)
     FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)"""
_FOUND = "c.oid = to_regclass(quote_ident(t.schema) || '.' || quote_ident(t.name))"
# Of every table that takes changes: another fingerprint when it, or what is recorded of it, has become another.
_FINGERPRINTS = f"""
SELECT t.oid, md5(concat_ws(' ', t.shape, {_LOOKS})) FROM catchment.tables t JOIN pg_class c ON {_FOUND}
WHERE t.source = %s AND t.current
"""
_STANDING = f"""
SELECT t.source, md5(string_agg(concat_ws(' ', t, {_LOOKS}, CASE WHEN t.refill <> '' THEN {SHADOW} END),
                                ',' ORDER BY t.oid))
FROM catchment.tables t LEFT JOIN pg_class c ON {_FOUND} WHERE t.source = ANY (%s) GROUP BY t.source
"""


def standing(connection: psycopg.Connection, sources: Collection[str]) -> dict[str, str]:
    """For each source of which anything is recorded: a text that stays the same while its tables and the records do."""
    return dict(connection.execute(_STANDING, (list(sources),)).fetchall())


class Meddling:
    """Looks at what was altered since it last looked; the first look is at all tables of the source."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._right: dict[int, str] = {}

    def found(self, session: Connected) -> Iterator[tuple[Entry, TableMisshapen | None]]:
        """Tables that take changes, or try to, each with what is not as it was made; null when all is."""
        connection = session.connection
        fingerprints: dict[int, str] = dict(connection.execute(_FINGERPRINTS, (self._source,)).fetchall())
        unknown = [oid for oid, fingerprint in fingerprints.items() if self._right.get(oid) != fingerprint]
        registry = Registry(session, self._source)
        for entry in registry.entries(unknown) if unknown else []:
            if entry.taken and not any(other.live for other in registry.at(entry.taken.relation)):
                yield entry, shapes.swapped(self._source, entry.taken.relation, entry.taken.shape)
            if entry.live is None:
                continue
            relation, table = entry.live.relation, entry.live.shape
            if wrong := _wrong(connection, entry.live):
                what = f"{relation.quoted} in the ODS {wrong}: somebody altered it there"
                yield entry, shapes.misshapen(what, self._source, relation, table)
            elif _is_unlogged(connection, entry.live):
                yield entry, _unlogged(self._source, relation, table)
            else:
                self._right[entry.oid] = fingerprints[entry.oid]
                yield entry, None


def stop_altered(session: Connected, source: str, meddling: Meddling) -> None:
    """Record of all that were altered that they have stopped, in the transaction that is open.

    Of the others, which relation they are, where that is not known: an earlier version has made them, or a restore.
    """
    registry = Registry(session, source)
    for entry, error in meddling.found(session):
        if error:
            registry.stop(entry.oid, str(error))
        elif entry.live and not entry.live.recorded:
            registry.save(entry)


def _wrong(connection: psycopg.Connection, live: Stored) -> str | None:
    """What of the relation is not as its table wants it; null when all is. Columns of somebody's own may be there."""
    columns = read_columns(connection, live.stamp)
    for column, type_ in zip(live.shape.columns, ods_types(connection, live.shape), strict=True):
        found = columns.get(column.name)
        if found is None:
            return f"has no column {column.name}"
        # The type of an extension that came after the table is text there.
        if (is_now := _type(found)) != type_ and not (column.type_extension and is_now == "text"):
            return f"has column {column.name} of type {is_now} instead of {type_}"
    if {column.name for column in columns.values() if column.equals} != set(live.shape.key):
        return "has another primary key"
    return None


def _is_unlogged(connection: psycopg.Connection, live: Stored) -> bool:
    query = "SELECT relpersistence = 'u' FROM pg_class WHERE oid = %s::regclass"
    return connection.execute(query, (live.relation.quoted,)).fetchone() == (True,)


def _unlogged(source: str, relation: Relation, table: Table) -> TableMisshapen:
    """A crash empties it and leaves the frontier where it is.

    https://www.postgresql.org/docs/current/sql-createtable.html#SQL-CREATETABLE-UNLOGGED
    """
    return TableMisshapen(
        f"{relation.quoted} in the ODS is unlogged: somebody altered it there, and a crash of the ODS empties it",
        source=source,
        table=str(table),
        remedy=f"in the ODS: ALTER TABLE {relation.quoted} SET LOGGED; then run `catchment backfill {source} {table}`",
    )


def _type(column: OdsColumn) -> str:
    return column.type.as_string(None)
