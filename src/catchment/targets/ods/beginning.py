"""The beginning of a refill: an empty shadow beside what readers see."""

from __future__ import annotations

from dataclasses import replace

import psycopg

from catchment.model.errors import TableMisshapen
from catchment.model.table import Table
from catchment.targets.ods import reshape, shapes
from catchment.targets.ods.naming import live_relation, shadow_relation
from catchment.targets.ods.registry import Entry, Registry, Stored


def begin_shadow(
    connection: psycopg.Connection, registry: Registry, source: str, dataset: str, refill: str, table: Table
) -> None:
    """Let this refill build the table up from nothing. One that cannot appear in the end stops now."""
    entry = registry.entry(table.oid)
    shadow = shadow_relation(source, table.oid)
    if entry.shadow:
        shapes.drop(connection, entry.shadow.relation)
    if entry.live is None:
        try:
            entry = replace(entry, live=_take_place(connection, registry, source, dataset, table), current=False)
        except TableMisshapen as error:
            # Readers have never seen it: what is recorded of its shadow says what it is called.
            registry.save(replace(entry, shadow=Stored(shadow, table), refill=None).stopped_by(error))
            return
    elif entry.live.shape.version != table.version:
        # Nobody told how it got this shape: changes are missing up to here.
        entry = replace(entry, current=False)
    shapes.create(connection, shadow, table)
    if registry.takes_changes():  # to build a key in the end would keep these tables waiting
        reshape.add_key(connection, shadow, table)
    registry.save(replace(entry, shadow=Stored(shadow, table), refill=refill))


def _take_place(
    connection: psycopg.Connection, registry: Registry, source: str, dataset: str, table: Table
) -> Stored | None:
    """What readers see of an earlier table of this name, which the source has dropped or renamed: theirs to keep.

    Null when there is none. Else see early that the table will be able to appear.
    """
    live = live_relation(source, dataset, table)
    for earlier in registry.at(live):
        if earlier.live and str(earlier.live.shape) == str(table):
            if earlier.shadow:
                shapes.drop(connection, earlier.shadow.relation)
            registry.save(Entry(earlier.oid))
            return replace(earlier.live, shape=shapes.known_by_name(earlier.live.shape, table))
    shapes.create_schema(connection, source, live.schema)
    if shapes.exists(connection, live) and not any(other.live for other in registry.at(live)):
        raise TableMisshapen(
            f"{live.quoted} is already there in the ODS and was not made by Catchment for this table",
            source=source,
            table=str(table),
            remedy=f"rename or drop it, then `catchment backfill {source} {table}`",
        )
    return None
