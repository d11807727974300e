"""Tables of the ODS made as the source's tables are."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import psycopg
from psycopg import sql

from catchment.model.errors import TableMisshapen
from catchment.model.table import Table
from catchment.targets.ods.columns import ods_types
from catchment.targets.ods.naming import Relation, shortened
from catchment.targets.ods.session import creating_schema

_FILLFACTOR = 80


def create(connection: psycopg.Connection, relation: Relation, table: Table) -> None:
    """An empty relation of this shape, which has yet to get its key: nothing but that is constrained.

    Where rows can be updated a fifth of each page is kept free: a new version on the same page needs no new entry in
    any index, and what it replaces is removed in passing.
    https://www.postgresql.org/docs/current/storage-hot.html
    """
    definitions = [
        sql.SQL("{} {}{}").format(
            sql.Identifier(column.name), sql.SQL(type_), sql.SQL(" NOT NULL" if column.name in table.key else "")
        )
        for column, type_ in zip(table.columns, ods_types(connection, table), strict=True)
    ]
    room = sql.SQL(f" WITH (fillfactor = {_FILLFACTOR})" if table.key else "")
    columns = sql.SQL(", ").join(definitions)
    connection.execute(sql.SQL("CREATE TABLE {} ({}){}").format(relation.identifier, columns, room))


def create_schema(connection: psycopg.Connection, source: str, name: str) -> None:
    """The schema, if it is not there. Raises TargetRefused with the grant that helps."""
    identifier = sql.Identifier(name)
    # Asked first: IF NOT EXISTS wants the privilege also where there is nothing to do.
    if connection.execute("SELECT to_regnamespace(%s)", (identifier.as_string(None),)).fetchone() == (None,):
        with creating_schema(connection, source):
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(identifier))


def drop(connection: psycopg.Connection, relation: Relation) -> None:
    connection.execute(sql.SQL("DROP TABLE {}").format(relation.identifier))


def exists(connection: psycopg.Connection, relation: Relation) -> bool:
    """Whether there is a relation of this name, of whatever kind."""
    return connection.execute("SELECT to_regclass(%s)", (relation.quoted,)).fetchone() != (None,)


def name_of_key(connection: psycopg.Connection, relation: Relation) -> sql.Identifier:
    """A name for the key's index that is free: another one may begin alike, or be of a table that was renamed."""
    names = (shortened(relation.name, f"_pkey{number or ''}") for number in count())
    return sql.Identifier(next(name for name in names if not exists(connection, Relation(relation.schema, name))))


def misshapen(what: str, source: str, relation: Relation, table: Table) -> TableMisshapen:
    """The error of a relation that only a new one can replace."""
    return TableMisshapen(
        what,
        source=source,
        table=str(table),
        remedy=f"DROP TABLE {relation.quoted}; in the ODS: it is then made and read again",
    )


def swapped(source: str, relation: Relation, table: Table) -> TableMisshapen:
    """The error of a relation that somebody put in the place of the table's own: it is theirs, and stays as it is."""
    return TableMisshapen(
        f"{relation.quoted} in the ODS is not the table that Catchment made: somebody put another one in its place",
        source=source,
        table=str(table),
        remedy=f"rename or drop it, then `catchment backfill {source} {table}`",
    )


def away(source: str, table: Table) -> TableMisshapen:
    """The error of a table for which changes came while it was not there; it may be back, without them."""
    return TableMisshapen(
        "was not there in the ODS when changes came for it: somebody had renamed or moved it",
        source=source,
        table=str(table),
        remedy=f"run `catchment backfill {source} {table}`",
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
