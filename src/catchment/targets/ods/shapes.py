"""Tables of the ODS made and altered as the source's tables are."""

from __future__ import annotations

from dataclasses import replace

import psycopg
from psycopg import sql

from catchment.model.errors import TableMisshapen
from catchment.model.table import Table
from catchment.targets.ods.columns import ods_types
from catchment.targets.ods.naming import Relation, shortened
from catchment.targets.ods.session import creating_schema

_LOCK_TIMEOUT = sql.SQL("SET LOCAL lock_timeout = '5s'")
_NO_LOCK_TIMEOUT = sql.SQL("SET LOCAL lock_timeout = 0")


def create(connection: psycopg.Connection, relation: Relation, table: Table) -> None:
    """An empty relation of this shape: the key is its primary key, and nothing else is constrained."""
    definitions = [
        sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(type_))
        for column, type_ in zip(table.columns, ods_types(connection, table), strict=True)
    ]
    if table.key:
        key = sql.SQL(", ").join(map(sql.Identifier, table.key))
        definitions.append(
            sql.SQL("CONSTRAINT {} PRIMARY KEY ({})").format(sql.Identifier(shortened(relation.name, "_pkey")), key)
        )
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(relation.identifier, sql.SQL(", ").join(definitions)))


def create_schema(connection: psycopg.Connection, source: str, name: str) -> None:
    """The schema, if it is not there. Raises TargetRefused with the grant that helps."""
    identifier = sql.Identifier(name)
    # Asked first: IF NOT EXISTS wants the privilege also where there is nothing to do.
    if connection.execute("SELECT to_regnamespace(%s)", (identifier.as_string(None),)).fetchone() == (None,):
        with creating_schema(connection, source):
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(identifier))


def drop(connection: psycopg.Connection, relation: Relation) -> None:
    connection.execute(sql.SQL("DROP TABLE {}").format(relation.identifier))


def differs(connection: psycopg.Connection, old: Table, new: Table) -> str | None:
    """What of the new shape a relation of the old one cannot take; null when it can."""
    if _key_numbers(old) != _key_numbers(new):
        return "its key changed"
    old_types, new_types = (
        dict(zip((column.number for column in table.columns), ods_types(connection, table), strict=True))
        for table in (old, new)
    )
    for column in new.columns:
        if column.number in old_types and old_types[column.number] != new_types[column.number]:
            return f"column {column.name} changed its type to {new_types[column.number]}"
    return None


def adapt(connection: psycopg.Connection, relation: Relation, old: Table, new: Table) -> None:
    """Rename columns and add new ones; what the source dropped stays, no longer filled.

    A column that stays gives its name away when a new one needs it: its old values are not the new one's. Raises
    LockNotAvailable when readers hold the table for longer than a few seconds.
    """
    old_names = {column.number: column.name for column in old.columns}
    renamed = {
        old_names[column.number]: column.name
        for column in new.columns
        if column.number in old_names and old_names[column.number] != column.name
    }
    added = [
        (column.name, type_)
        for column, type_ in zip(new.columns, ods_types(connection, new), strict=True)
        if column.number not in old_names
    ]
    if not renamed and not added:
        return
    needed = {*renamed.values(), *(name for name, _ in added)}
    in_the_way = {
        name: shortened(name, f" (dropped {number})")
        for name, number in _column_numbers(connection, relation)
        if name in needed and name not in renamed
    }
    # Names can be swapped: first all of them give way.
    passing = {name: f"catchment {number}" for number, name in enumerate(renamed)}
    actions = [
        *((name, to) for name, to in in_the_way.items()),
        *((name, to) for name, to in passing.items()),
        *((passing[name], to) for name, to in renamed.items()),
    ]
    connection.execute(_LOCK_TIMEOUT)
    for name, to in actions:
        connection.execute(
            sql.SQL("ALTER TABLE {} RENAME COLUMN {} TO {}").format(
                relation.identifier, sql.Identifier(name), sql.Identifier(to)
            )
        )
    for name, type_ in added:
        connection.execute(
            sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(relation.identifier, sql.Identifier(name), sql.SQL(type_))
        )
    connection.execute(_NO_LOCK_TIMEOUT)


def adapt_live(connection: psycopg.Connection, source: str, relation: Relation, old: Table, new: Table) -> None:
    """As ``adapt``. Raises TableMisshapen for a change that would have to rewrite what readers see."""
    if reason := differs(connection, old, new):
        raise misshapen(f"{reason}, which {relation.quoted} in the ODS cannot follow", source, relation, new)
    adapt(connection, relation, old, new)


def misshapen(what: str, source: str, relation: Relation, table: Table) -> TableMisshapen:
    """The error of a relation that only a new one can replace."""
    return TableMisshapen(
        what,
        source=source,
        table=str(table),
        remedy=f"DROP TABLE {relation.quoted}; in the ODS: it is then made and read again",
    )


def known_by_name(old: Table, new: Table) -> Table:
    """The shape of a table that the source dropped as one of the table that it made anew under the same name.

    Its columns are the new one's where they have the same names; the others count as dropped.
    """
    numbers = {column.name: column.number for column in new.columns}
    return replace(
        old,
        oid=new.oid,
        columns=tuple(replace(one, number=numbers[one.name]) for one in old.columns if one.name in numbers),
        key=tuple(name for name in old.key if name in numbers),
    )


def _key_numbers(table: Table) -> set[int]:
    return {table.columns[position].number for position in table.key_positions}


def _column_numbers(connection: psycopg.Connection, relation: Relation) -> list[tuple[str, int]]:
    return connection.execute(
        "SELECT attname, attnum FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
        (relation.quoted,),
    ).fetchall()
