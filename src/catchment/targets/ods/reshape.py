"""Tables of the ODS follow the shapes of the source's tables in place.

Whoever reads them has to notice nothing: what is done here rewrites no table and takes no row from any snapshot, and
views and grants stay. https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-NOTES
"""

from __future__ import annotations

from dataclasses import replace

import psycopg
from psycopg import sql

from catchment.model.errors import TableMisshapen
from catchment.model.table import Table
from catchment.targets.ods import shapes
from catchment.targets.ods.altering import altering, lock
from catchment.targets.ods.columns import ods_types
from catchment.targets.ods.naming import Relation, live_relation, shortened
from catchment.targets.ods.registry import Entry, Registry, Stored


def follow(connection: psycopg.Connection, source: str, live: Stored, table: Table) -> Stored:
    """What readers see takes the new shape. Raises TableMisshapen, and then it is as it was."""
    if _asks_for_nothing(live.shape, table):
        return replace(live, shape=table)
    with altering(connection, source, live.relation, table):
        file = _file(connection, live.relation)
        adapt(connection, live.relation, live.shape, table)
        if _file(connection, live.relation) != file:
            # Snapshots from before would find it empty.
            raise TableMisshapen(
                f"the ODS would have to rewrite {live.relation.quoted} in place",
                source=source,
                table=str(table),
                remedy=f"run `catchment backfill {source} {table}`",
            )
    return replace(live, shape=table)


def adapt(connection: psycopg.Connection, relation: Relation, old: Table, new: Table) -> None:
    """Columns, types and key of a relation that holds all rows as they were before the change."""
    adapt_columns(connection, relation, old, new)
    _adapt_types(connection, relation, old, new)
    if _key_numbers(old) != _key_numbers(new):
        drop_key(connection, relation)
        add_key(connection, relation, new)


def adapt_columns(connection: psycopg.Connection, relation: Relation, old: Table, new: Table) -> None:
    """Rename columns and add new ones, with what old rows have in them; what the source dropped stays, not filled."""
    for action in column_changes(connection, relation, old, new):
        _alter(connection, relation, action)


def column_changes(connection: psycopg.Connection, relation: Relation, old: Table, new: Table) -> list[sql.Composable]:
    """The actions of ALTER TABLE that rename columns and add new ones.

    A column that stays gives its name away when a new one needs it: its old values are not the new one's.
    """
    numbers = _column_numbers(connection, relation)
    old_names = {column.number: column.name for column in old.columns if column.name in numbers}
    renamed = {
        old_names[column.number]: column.name
        for column in new.columns
        if column.number in old_names and old_names[column.number] != column.name
    }
    added = [
        (column, type_)
        for column, type_ in zip(new.columns, ods_types(connection, new), strict=True)
        if column.number not in old_names
    ]
    needed = {*renamed.values(), *(column.name for column, _ in added)}
    in_the_way = {
        name: shortened(name, f" (dropped {number})")
        for name, number in numbers.items()
        if name in needed and name not in renamed
    }
    # Names can be swapped: first all of them give way.
    passing = {name: f"catchment {number}" for number, name in enumerate(renamed)}
    renames = [
        *((name, to) for name, to in in_the_way.items()),
        *((name, to) for name, to in passing.items()),
        *((passing[name], to) for name, to in renamed.items()),
    ]
    actions: list[sql.Composable] = [
        sql.SQL("RENAME COLUMN {} TO {}").format(*map(sql.Identifier, each)) for each in renames
    ]
    for column, type_ in added:
        added_name = sql.Identifier(column.name)
        # A constant default is not written into the rows that are there, it is kept beside them.
        default = sql.SQL("" if column.missing is None else " DEFAULT {}").format(sql.Literal(column.missing))
        actions.append(sql.SQL("ADD COLUMN {} {}{}").format(added_name, sql.SQL(type_), default))
        if column.missing is not None:
            actions.append(sql.SQL("ALTER COLUMN {} DROP DEFAULT").format(added_name))
    return actions


def _adapt_types(connection: psycopg.Connection, relation: Relation, old: Table, new: Table) -> None:
    """Types that need no other bytes: the source has changed them without touching its rows."""
    old_types, new_types = (
        dict(zip((column.number for column in table.columns), ods_types(connection, table), strict=True))
        for table in (old, new)
    )
    changed = [
        column
        for column in new.columns
        if column.number in old_types and old_types[column.number] != new_types[column.number]
    ]
    for column in changed:
        type_ = sql.SQL(new_types[column.number])
        _alter(connection, relation, sql.SQL("ALTER COLUMN {} TYPE {}").format(sql.Identifier(column.name), type_))


def drop_key(connection: psycopg.Connection, relation: Relation) -> None:
    """Any row may come."""
    found = connection.execute(
        """SELECT c.conname, ARRAY(SELECT a.attname::text FROM pg_attribute a
                                   WHERE a.attrelid = c.conrelid AND a.attnum = ANY (c.conkey))
           FROM pg_constraint c WHERE c.conrelid = %s::regclass AND c.contype = 'p'""",
        (relation.quoted,),
    ).fetchone()
    if found is None:
        return
    name, columns = found
    _alter(connection, relation, sql.SQL("DROP CONSTRAINT {}").format(sql.Identifier(name)))
    for column in columns:
        _alter(connection, relation, sql.SQL("ALTER COLUMN {} DROP NOT NULL").format(sql.Identifier(column)))


def add_key(connection: psycopg.Connection, relation: Relation, table: Table) -> None:
    """The table's key becomes the relation's, if it has one."""
    if table.key:
        key = sql.SQL(", ").join(map(sql.Identifier, table.key))
        _alter(connection, relation, sql.SQL("ADD PRIMARY KEY ({})").format(key))


def move(
    connection: psycopg.Connection, registry: Registry, source: str, dataset: str, entry: Entry, table: Table
) -> Entry:
    """What readers see of the table follows its name. Raises TableMisshapen when another one's table has that name."""
    live = entry.live
    if live is None or live.relation == (wanted := live_relation(source, dataset, table)):
        return entry
    with altering(connection, source, live.relation, table, to=wanted):
        give_way(connection, registry, source, wanted, entry.oid, table)
        passing = f"catchment {entry.oid}"
        _alter(connection, live.relation, sql.SQL("RENAME TO {}").format(sql.Identifier(passing)))
        if wanted.schema != live.relation.schema:
            _move_schema(connection, source, Relation(live.relation.schema, passing), wanted)
        there = Relation(wanted.schema, passing)
        _alter(connection, there, sql.SQL("RENAME TO {}").format(sql.Identifier(wanted.name)))
        shape = replace(live.shape, schema=table.schema, name=table.name)
        moved = replace(entry, live=replace(live, relation=wanted, shape=shape))
        registry.save(moved)
    return moved


def _move_schema(connection: psycopg.Connection, source: str, relation: Relation, wanted: Relation) -> None:
    """Its key's index goes with it, and must not meet one of the same name."""
    shapes.create_schema(connection, source, wanted.schema)
    passing = Relation(wanted.schema, f"{relation.name} key")
    rename = sql.SQL("ALTER INDEX {} RENAME TO {}")
    key = connection.execute(
        """SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
           WHERE i.indrelid = %s::regclass AND i.indisprimary""",
        (relation.quoted,),
    ).fetchone()
    if key is not None:
        here = Relation(relation.schema, key[0]).identifier
        connection.execute(rename.format(here, sql.Identifier(passing.name)))
    _alter(connection, relation, sql.SQL("SET SCHEMA {}").format(sql.Identifier(wanted.schema)))
    if key is not None:
        connection.execute(rename.format(passing.identifier, shapes.name_of_key(connection, wanted)))


def give_way(
    connection: psycopg.Connection, registry: Registry, source: str, place: Relation, oid: int, table: Table
) -> None:
    """Nothing is there any more: a table of this source that has the name is to get another one, or is gone there."""
    if not shapes.exists(connection, place):
        return
    others = [other for other in registry.at(place) if other.live and other.oid != oid]
    if not others:
        raise TableMisshapen(
            f"{place.quoted} is already there in the ODS and was not made by Catchment for this table",
            source=source,
            table=str(table),
            remedy=f"rename or drop it, then `catchment backfill {source} {table}`",
        )
    for other in others:
        lock(connection, source, place, table)
        aside = Relation(place.schema, shortened(place.name, f" (was {other.oid})"))
        _alter(connection, place, sql.SQL("RENAME TO {}").format(sql.Identifier(aside.name)))
        registry.save(replace(other, live=other.live and replace(other.live, relation=aside)))


def _alter(connection: psycopg.Connection, relation: Relation, action: sql.Composable) -> None:
    connection.execute(sql.SQL("ALTER TABLE {} {}").format(relation.identifier, action))


def _file(connection: psycopg.Connection, relation: Relation) -> object:
    return connection.execute("SELECT pg_relation_filenode(%s::regclass)", (relation.quoted,)).fetchone()


def _asks_for_nothing(old: Table, new: Table) -> bool:
    """Whether readers need not be kept waiting: columns were dropped, or may be null now."""
    known, wanted = ([replace(column, nullable=True, missing=None) for column in each.columns] for each in (old, new))
    return all(column in known for column in wanted) and _key_numbers(old) == _key_numbers(new)


def _key_numbers(table: Table) -> set[int]:
    return {table.columns[position].number for position in table.key_positions}


def _column_numbers(connection: psycopg.Connection, relation: Relation) -> dict[str, int]:
    query = "SELECT attname, attnum FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
    return dict(connection.execute(query, (relation.quoted,)).fetchall())
