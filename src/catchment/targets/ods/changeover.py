"""The end of a refill: shadows become what readers see."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count

import psycopg
from psycopg import sql

from catchment.model.errors import TableMisshapen, TargetUnreachable
from catchment.model.table import Table
from catchment.targets.ods import shapes
from catchment.targets.ods.naming import Relation, live_relation, shortened
from catchment.targets.ods.registry import Entry, Registry, Stored
from catchment.targets.ods.session import ALL_JOINS, BY_INDEX, read_columns

_PATIENCE = 5.0  # seconds: other sources want the session too; it is retried
_POLL = 0.05

# Whoever has a snapshot from before the last commit of this source: it would not see all rows of the shadows. A
# snapshot is known by the virtual transaction that holds it.
_OLD_SNAPSHOTS = """
SELECT l.virtualtransaction, a.pid
FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid AND l.locktype = 'virtualxid' AND l.granted
WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.usesysid IS NOT NULL
  AND age(a.backend_xmin) >= (SELECT age(xmin) FROM catchment.frontier WHERE source = %s)
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
    return dict(connection.execute(_OLD_SNAPSHOTS, (source,)).fetchall())


def change_over(
    connection: psycopg.Connection, registry: Registry, source: str, dataset: str, entries: Sequence[Entry]
) -> None:
    """Let the shadows of one refill take the place of what readers see, in the transaction that is open.

    A table that readers know keeps its identity and changes by DML only: views, grants and snapshots stay good. One
    that cannot take its shadow's shape in this way stops alone.
    """
    for entry in entries:
        if entry.shadow is None:
            continue
        connection.execute(sql.SQL("ANALYZE {}").format(entry.shadow.relation.identifier))
        if entry.live is None:
            live = live_relation(source, dataset, entry.shadow.shape)
            shapes.create_schema(connection, source, live.schema)
            _appear(connection, entry.shadow.relation, live, entry.shadow.shape)
            registry.save(Entry(entry.oid, Stored(live, entry.shadow.shape), current=True))
            continue
        try:
            shapes.adapt_live(connection, source, entry.live.relation, entry.live.shape, entry.shadow.shape)
            _merge(connection, source, entry.shadow, entry.live)
            changed = Entry(entry.oid, Stored(entry.live.relation, entry.shadow.shape), current=True)
        except TableMisshapen as error:
            changed = Entry(entry.oid, entry.live, current=False, stopped=str(error))
        shapes.drop(connection, entry.shadow.relation)
        registry.save(changed)


def _merge(connection: psycopg.Connection, source: str, shadow: Stored, live: Stored) -> None:
    """Make the live rows those of the shadow by differences; rows that are the same are not touched.

    The same means the same bytes (``*<>`` compares them), since equal is not the same: 1.0 and 1.00, or citext.
    https://www.postgresql.org/docs/current/functions-comparisons.html#COMPOSITE-TYPE-COMPARISON
    """
    columns, live_columns = read_columns(connection, shadow.stamp), read_columns(connection, live.stamp)
    for column in shadow.shape.columns:
        # Only a person can have made them differ: by ALTER TABLE, or with an extension that came after the table.
        if (found := live_columns.get(column.name)) is None or found.type != columns[column.name].type:
            wanted = columns[column.name].type.as_string(None)
            raise shapes.misshapen(
                f"{live.relation.quoted} in the ODS has no column {column.name} of type {wanted}",
                source,
                live.relation,
                shadow.shape,
            )
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
    if not shadow.shape.key:
        connection.execute(
            sql.SQL("DELETE FROM {live}; INSERT INTO {live} ({names}) SELECT {names} FROM {shadow}").format(**parts)
        )
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
        names = (shortened(live.name, f"_pkey{number or ''}") for number in count())
        name = sql.Identifier(next(name for name in names if not _is_taken(connection, Relation(live.schema, name))))
        statements.append(sql.SQL("ALTER INDEX {} RENAME TO {}").format(index.identifier, name))
    connection.execute(sql.SQL("; ").join(statements))


def _is_taken(connection: psycopg.Connection, relation: Relation) -> bool:
    """By the key of a table that somebody renamed, or of one whose long name begins alike."""
    return connection.execute("SELECT to_regclass(%s)", (relation.quoted,)).fetchone() != (None,)
