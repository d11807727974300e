"""The end of a refill: shadows become what readers see."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import psycopg
from psycopg import sql

from catchment.model.errors import TableMisshapen, TargetUnreachable
from catchment.model.table import Table
from catchment.postgres.connection import Translation
from catchment.targets.ods import reshape, shapes
from catchment.targets.ods.altering import altering
from catchment.targets.ods.naming import Relation, live_relation, shortened
from catchment.targets.ods.refusal import Place, refusals
from catchment.targets.ods.registry import Entry, Registry, Stored
from catchment.targets.ods.session import ALL_JOINS, BY_INDEX, LOCK, OdsColumn, read_columns

_PATIENCE = 5.0  # seconds: other sources want the session too; it is retried
_POLL = 0.05

# Whoever has a snapshot from before the last commit of this source: it would not see all rows of the shadows. A
# snapshot is known by the virtual transaction that holds it. What a transaction of ours for another source has does not
# matter: that reads nothing of this one, and may take its time.
_OLD_SNAPSHOTS = """
SELECT l.virtualtransaction, a.pid
FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid AND l.locktype = 'virtualxid' AND l.granted
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.usesysid IS NOT NULL
  AND age(a.backend_xmin) >= (SELECT age(xmin) FROM catchment.frontier WHERE source = %(source)s)
  AND NOT EXISTS (SELECT FROM pg_locks o WHERE o.pid = a.pid AND o.locktype = 'advisory' AND o.classid = %(lock)s)
"""

_GRANTS = """
SELECT acl.privilege_type, CASE WHEN acl.grantee <> 0 THEN pg_get_userbyid(acl.grantee) END, acl.is_grantable,
       granted.attname
FROM (SELECT relacl, NULL::name FROM pg_class WHERE oid = %(table)s::regclass
      UNION ALL
      SELECT attacl, attname FROM pg_attribute WHERE attrelid = %(table)s::regclass AND NOT attisdropped
     ) granted (acl, attname)
CROSS JOIN aclexplode(granted.acl) acl
"""


def wait_for_old_snapshots(connection: psycopg.Connection, source: str) -> None:
    """Return when every snapshot in use sees all that has been committed for the source.

    A table that is renamed appears to older snapshots at once, without the rows that came after them, as with CREATE
    INDEX CONCURRENTLY. Snapshots taken from now on see all. Raises TargetUnreachable, which is retried, after a while.
    https://www.postgresql.org/docs/current/mvcc-caveats.html
    """
    deadline = time.monotonic() + _PATIENCE
    waiting = _old_snapshots(connection, source)
    while waiting:
        if time.monotonic() > deadline:
            raise TargetUnreachable(
                f"a transaction in the ODS (pid {min(waiting.values())}) is older than the tables that are to appear",
                source=source,
                remedy="end that transaction; the tables appear as soon as it is gone",
            )
        time.sleep(_POLL)
        waiting = {key: pid for key, pid in _old_snapshots(connection, source).items() if key in waiting}


def _old_snapshots(connection: psycopg.Connection, source: str) -> dict[str, int]:
    return dict(connection.execute(_OLD_SNAPSHOTS, {"source": source, "lock": LOCK}).fetchall())


def lets_tables_appear(connection: psycopg.Connection, entries: Sequence[Entry]) -> bool:
    """Whether a shadow of theirs becomes a table, so that old snapshots have to be waited for."""
    return any(each.shadow and (each.live is None or _is_of_other_types(connection, each)) for each in entries)


def change_over(
    connection: psycopg.Connection,
    registry: Registry,
    source: str,
    dataset: str,
    entries: Sequence[Entry],
    translation: Translation,
) -> None:
    """Let the shadows of one refill take the place of what readers see, in the transaction that is open.

    A table that readers know keeps its identity and changes by DML only: views, grants and snapshots stay good. Where
    a column's type has changed its shadow replaces it, with its grants and indexes. One that cannot take its shadow's
    shape stops alone. Raises Refusal when what a person did to one stands in the way.

    Readers wait only for what is altered, from there to the end of the transaction: that comes last.
    """
    for told in entries:
        if told.shadow:
            connection.execute(sql.SQL("ANALYZE {}").format(told.shadow.relation.identifier))
    for told in sorted(entries, key=lambda each: _alters(connection, each)):
        entry = registry.entry(told.oid)  # another one may have taken its name just now
        if entry.shadow is None:
            continue
        shadow = entry.shadow
        try:
            entry = reshape.move(connection, registry, source, dataset, entry, shadow.shape)
            live = _take_place(connection, registry, source, dataset, replace(entry, shadow=shadow), translation)
            changed = Entry(entry.oid, live, current=True)
        except TableMisshapen as error:
            shapes.drop(connection, shadow.relation)
            # Its shape says what the table is called, also of one that readers have never seen.
            changed = Entry(entry.oid, entry.live, current=False, shadow=shadow, stopped=str(error))
        registry.save(changed)


def _take_place(
    connection: psycopg.Connection,
    registry: Registry,
    source: str,
    dataset: str,
    entry: Entry,
    translation: Translation,
) -> Stored:
    """The shadow is used up; returns what readers see."""
    live, shadow = entry.live, entry.shadow
    assert shadow is not None  # noqa: S101 -- the caller has looked
    if live is None:
        place = live_relation(source, dataset, shadow.shape)
        shapes.create_schema(connection, source, place.schema)
        reshape.give_way(connection, registry, source, place, entry.oid, shadow.shape)
        with altering(connection, source, shadow.relation, shadow.shape, to=place):
            _appear(connection, shadow.relation, place, shadow.shape)
        return replace(shadow, relation=place)
    readers_wait = _alters(connection, entry)
    with altering(connection, source, live.relation, shadow.shape) if readers_wait else contextlib.nullcontext():
        if _is_of_other_types(connection, entry):
            _replace(connection, live, shadow)
            return replace(shadow, relation=live.relation)
        reshape.adapt_columns(connection, live.relation, live.shape, shadow.shape)
        with refusals(Place(shadow.shape, live.relation, entry.refill), translation):
            _merge(connection, shadow, live)
        shapes.drop(connection, shadow.relation)
    return replace(live, shape=shadow.shape)


def _alters(connection: psycopg.Connection, entry: Entry) -> bool:
    """Whether the change-over of this table has to alter one; else rows are all that changes of it."""
    live, shadow = entry.live, entry.shadow
    if live is None or shadow is None:
        return shadow is not None
    return (
        str(live.shape) != str(shadow.shape)
        or _is_of_other_types(connection, entry)
        or _has_another_key(read_columns(connection, live.stamp), shadow.shape)
        or bool(reshape.column_changes(connection, live.relation, live.shape, shadow.shape))
    )


def _has_another_key(live_columns: Mapping[str, OdsColumn], shape: Table) -> bool:
    return {column.name for column in live_columns.values() if column.equals} != set(shape.key)


def _is_of_other_types(connection: psycopg.Connection, entry: Entry) -> bool:
    """Whether a column that readers know has another type in the shadow: what is stored of it is void."""
    if entry.live is None or entry.shadow is None:
        return False
    old, new = read_columns(connection, entry.live.stamp), read_columns(connection, entry.shadow.stamp)
    names = {column.number: column.name for column in entry.live.shape.columns}
    return any(
        (name := names.get(column.number)) in old and old[name].type != new[column.name].type
        for column in entry.shadow.shape.columns
    )


def _replace(connection: psycopg.Connection, live: Stored, shadow: Stored) -> None:
    """The shadow appears where the table was. Whoever has a snapshot that matters sees all of its rows.

    An index that does not fit the new shape is left out: readers see the same without it.
    """
    grants = list(_grants(connection, live, shadow.shape))
    query = "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %s::regclass AND NOT indisprimary"
    indexes = connection.execute(query, (live.relation.quoted,)).fetchall()
    shapes.drop(connection, live.relation)
    _appear(connection, shadow.relation, live.relation, shadow.shape)
    for grant in grants:
        connection.execute(grant)
    for (definition,) in indexes:
        misfit = contextlib.suppress(psycopg.ProgrammingError, psycopg.DataError, psycopg.IntegrityError)
        with misfit, connection.transaction():
            connection.execute(definition)


def _grants(connection: psycopg.Connection, live: Stored, shape: Table) -> Iterator[sql.Composed]:
    names = {column.number: column.name for column in live.shape.columns}
    renamed = {names[column.number]: column.name for column in shape.columns if column.number in names}
    for privilege, role, passed_on, column in connection.execute(_GRANTS, {"table": live.relation.quoted}).fetchall():
        if column is None or column in renamed:
            of = sql.SQL("" if column is None else " ({})").format(sql.Identifier(renamed.get(column, "")))
            to = sql.SQL("PUBLIC") if role is None else sql.Identifier(role)
            option = sql.SQL(" WITH GRANT OPTION" if passed_on else "")
            yield sql.SQL("GRANT {}{} ON {} TO {}{}").format(
                sql.SQL(privilege), of, live.relation.identifier, to, option
            )


def _merge(connection: psycopg.Connection, shadow: Stored, live: Stored) -> None:
    """Make the live rows those of the shadow by differences; rows that are the same are not touched.

    The same means the same bytes (``*<>`` compares them), since equal is not the same: 1.0 and 1.00, or citext.
    https://www.postgresql.org/docs/current/functions-comparisons.html#COMPOSITE-TYPE-COMPARISON
    """
    columns = read_columns(connection, shadow.stamp)
    another_key = _has_another_key(read_columns(connection, live.stamp), shadow.shape)
    names = [sql.Identifier(column.name) for column in shadow.shape.columns]
    parts = {
        "all_joins": ALL_JOINS,
        "by_index": BY_INDEX,
        "live": live.relation.identifier,
        "shadow": shadow.relation.identifier,
        "names": sql.SQL(", ").join(names),
        "new": sql.SQL(", ").join(sql.SQL("s.{}").format(name) for name in names),
        "old": sql.SQL(", ").join(sql.SQL("t.{}").format(name) for name in names),
        "assignments": sql.SQL(", ").join(sql.SQL("{} = s.{}").format(name, name) for name in names),
    }
    if another_key or not shadow.shape.key:
        if another_key:
            reshape.drop_key(connection, live.relation)
        connection.execute(sql.SQL("DELETE FROM {live}").format(**parts))
        if names:
            connection.execute(sql.SQL("INSERT INTO {live} ({names}) SELECT {names} FROM {shadow}").format(**parts))
        if another_key:
            reshape.add_key(connection, live.relation, shadow.shape)
        return
    parts["same_key"] = sql.SQL(" AND ").join(
        sql.SQL("t.{name} {equals} s.{name}").format(name=sql.Identifier(name), equals=columns[name].equals)
        for name in shadow.shape.key
    )
    connection.execute(
        sql.SQL(
            "{all_joins}; "
            "DELETE FROM {live} t WHERE NOT EXISTS (SELECT FROM {shadow} s WHERE {same_key}); "
            "MERGE INTO {live} t USING {shadow} s ON {same_key} "
            "WHEN MATCHED AND ROW({old})::record OPERATOR(pg_catalog.*<>) ROW({new})::record "
            "THEN UPDATE SET {assignments} "
            "WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({new}); "
            "{by_index}"
        ).format(**parts)
    )


def _appear(connection: psycopg.Connection, shadow: Relation, live: Relation, shape: Table) -> None:
    """The shadow becomes the table."""
    moved = Relation(live.schema, shadow.name)
    statements = [
        sql.SQL("ALTER TABLE {} SET SCHEMA {}").format(shadow.identifier, sql.Identifier(live.schema)),
        sql.SQL("ALTER TABLE {} RENAME TO {}").format(moved.identifier, sql.Identifier(live.name)),
    ]
    if shape.key:
        index = Relation(live.schema, shortened(shadow.name, "_pkey"))
        name = shapes.name_of_key(connection, live)
        statements.append(sql.SQL("ALTER INDEX {} RENAME TO {}").format(index.identifier, name))
    connection.execute(sql.SQL("; ").join(statements))
