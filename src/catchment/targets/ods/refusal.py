"""What the ODS refuses of one table, because of something that a person did there: that table stops, alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from catchment.model.errors import CatchmentError, TableRefused
from catchment.model.table import Table
from catchment.postgres.connection import Translation
from catchment.targets.ods import shapes
from catchment.targets.ods.locked import Locked
from catchment.targets.ods.naming import OWN_SCHEMA, Relation, shadow_relation
from catchment.targets.ods.registry import Registry, Stored

_PRIMARY_KEY = "p"
_TRIGGERS = """
SELECT tgname FROM pg_trigger
WHERE tgrelid = to_regclass(%s) AND NOT tgisinternal AND tgenabled IN ('O', 'A') ORDER BY tgname
"""
_IS_BARRED = """
SELECT NOT bool_and(has_table_privilege(to_regclass(%s), privilege))
FROM unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) privilege
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A relation that holds a table, or is made to; ``refill``: the one that fills it, null for the stream."""

    table: Table
    relation: Relation
    refill: str | None = None


class Refusal(Exception):  # it leaves the ODS as TableRefused
    """What was to be done there failed, and would fail again; the transaction is lost."""

    def __init__(self, place: Place, cause: psycopg.Error | CatchmentError) -> None:
        super().__init__()
        self.place = place
        self.cause = cause


@contextlib.contextmanager
def refusals(place: Place, translation: Translation) -> Iterator[None]:
    """Raise a Refusal for what fails inside this block; Locked, or as the translation says, for what is tried again."""
    try:
        yield
    except psycopg.errors.LockNotAvailable:
        raise Locked([place.relation]) from None
    except psycopg.Error as error:
        translated = translation(error, str(place.table))
        if translated.retry or error.sqlstate is None:
            raise translated from None
        raise Refusal(place, error) from None


def stop(connection: psycopg.Connection, registry: Registry, source: str, refusal: Refusal) -> TableRefused:
    """Record that the table has stopped, in the transaction that is open; what a refill has built of it is dropped."""
    error = _told(connection, source, refusal)
    table = refusal.place.table
    entry = registry.entry(table.oid)
    if entry.shadow:
        shapes.drop(connection, entry.shadow.relation)
    # Its shape says what the table is called, also of one that readers have never seen.
    shadow = Stored(shadow_relation(source, table.oid), table)
    registry.save(replace(entry, current=False, shadow=shadow, refill=None, stopped=str(error)))
    return error


def _told(connection: psycopg.Connection, source: str, refusal: Refusal) -> TableRefused:
    table, relation, cause = refusal.place.table, refusal.place.relation, refusal.cause
    if isinstance(cause, CatchmentError):
        return TableRefused(cause.what, source=source, table=str(table), remedy=cause.remedy)
    reported = f"{type(cause).__name__}, SQLSTATE {cause.sqlstate}"
    what, remedy = _culprit(connection, relation, cause)
    return TableRefused(
        f"{relation.quoted} in the ODS does not take what the source has: {what} ({reported})",
        source=source,
        table=str(table),
        remedy=f"{remedy} then run `catchment backfill {source} {table}`",
    )


def _culprit(connection: psycopg.Connection, relation: Relation, error: psycopg.Error) -> tuple[str, str]:
    """What refuses, and the statement that removes it."""
    diag = error.diag
    if diag.constraint_name and diag.schema_name and diag.table_name:
        holder = Relation(diag.schema_name, diag.table_name)
        kind = connection.execute(
            "SELECT contype FROM pg_constraint WHERE conrelid = to_regclass(%s) AND conname = %s",
            (holder.quoted, diag.constraint_name),
        ).fetchone()
        constraint = sql.Identifier(diag.constraint_name).as_string(None)
        if kind is None:
            index = Relation(diag.schema_name, diag.constraint_name)
            return f"unique index {index.quoted} refuses it", f"in the ODS: DROP INDEX {index.quoted};"
        if kind[0] != _PRIMARY_KEY:
            drop = f"in the ODS: ALTER TABLE {holder.quoted} DROP CONSTRAINT {constraint};"
            return f"constraint {constraint} of {holder.quoted} refuses it", drop
    if isinstance(error, psycopg.errors.NotNullViolation) and diag.column_name:
        column = sql.Identifier(diag.column_name).as_string(None)
        drop = f"in the ODS: ALTER TABLE {relation.quoted} ALTER COLUMN {column} DROP NOT NULL;"
        return f"column {column} is NOT NULL", drop
    if connection.execute(_IS_BARRED, (relation.quoted,)).fetchone() == (True,):
        role = sql.Identifier(connection.info.user).as_string(None)
        grant = f"in the ODS: GRANT SELECT, INSERT, UPDATE, DELETE ON {relation.quoted} TO {role};"
        return f"role {role} lacks a privilege on it", grant
    triggers = [
        sql.Identifier(name).as_string(None) for (name,) in connection.execute(_TRIGGERS, (relation.quoted,)).fetchall()
    ]
    if triggers:
        drop = f"in the ODS: DROP TRIGGER {triggers[0]} ON {relation.quoted}; or have it let this pass,"
        said = f"trigger {triggers[0]}" if len(triggers) == 1 else f"one of its triggers {', '.join(triggers)}"
        return f"{said} refuses it", drop
    if relation.schema == OWN_SCHEMA:
        return "a value is refused", "see what the log of the ODS server says about it,"
    return "a statement failed", f"in the ODS: DROP TABLE {relation.quoted}; or see what its server's log says,"
