"""Tables of the ODS are altered while readers use them; what the ODS does not allow stops that table alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import psycopg
from psycopg import sql

from catchment.model.errors import TableMisshapen, TargetRefused, TargetUnreachable
from catchment.model.table import Table
from catchment.postgres.connection import of_target
from catchment.targets.ods import shapes
from catchment.targets.ods.naming import Relation
from catchment.targets.ods.session import LOCK_TIMEOUT

_NOWAIT = "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE NOWAIT"
_IN_LINE = f"""
SET LOCAL lock_timeout = '5s'; LOCK TABLE {{}} IN ACCESS EXCLUSIVE MODE; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'
"""

_PATIENCE = 0.5  # seconds: readers wait meanwhile; it is retried
_POLL = 0.01

_KEEPS_OTHERS_WAITING = """
SELECT FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE l.pid = pg_backend_pid() AND l.mode = 'AccessExclusiveLock' AND l.granted
  AND c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'catchment'
LIMIT 1
"""

_VIEWS = """
SELECT DISTINCT r.ev_class::regclass::text
FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
  AND d.refobjid = %s::regclass AND r.ev_class <> d.refobjid
ORDER BY 1
"""

_LACKING = """
SELECT format('ALTER TABLE %%s OWNER', %(relation)s::text) FROM pg_class
WHERE oid = %(relation)s::regclass AND NOT pg_has_role(relowner, 'USAGE')
UNION ALL
SELECT format('GRANT USAGE, CREATE ON SCHEMA "%%s"', replace(nspname, '"', '""')) FROM pg_namespace
WHERE nspname = ANY (%(schemas)s) AND NOT (has_schema_privilege(oid, 'CREATE') AND has_schema_privilege(oid, 'USAGE'))
"""

_HOLDERS = """
SELECT min(l.pid) FROM pg_locks l
WHERE l.relation = %s::regclass AND l.granted AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@contextlib.contextmanager
def altering(
    connection: psycopg.Connection, source: str, live: Relation, table: Table, to: Relation | None = None
) -> Iterator[None]:
    """Do all of it or nothing; ``to``: where the relation is to be then, if elsewhere.

    Raises TableMisshapen for what the ODS does not allow; TargetUnreachable, which is retried, when readers hold the
    table for longer than a few seconds; psycopg's errors where trying again can help.
    """
    again = f"then `catchment backfill {source} {table}`"
    try:
        with connection.transaction():
            lock(connection, source, live, table)
            yield
    except TargetRefused as error:  # a schema that may not be made
        raise TableMisshapen(error.what, source=source, table=str(table), remedy=f"{error.remedy}; {again}") from None
    except psycopg.IntegrityError:
        raise shapes.misshapen(
            f"rows of {live.quoted} in the ODS do not fit its new key", source, live, table
        ) from None
    except psycopg.Error as error:
        refused = of_target(source)(error)
        if refused.retry or error.sqlstate is None:
            raise
        what = f"{live.quoted} in the ODS cannot follow: {refused.what}"
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            remedy = _grants(connection, live, to or live)
            raise TableMisshapen(what, source=source, table=str(table), remedy=f"{remedy} {again}") from None
        if isinstance(error, psycopg.errors.WrongObjectType):  # a view, a foreign table
            remedy = f"rename or drop {live.quoted} in the ODS: it is then made and read again"
            raise TableMisshapen(what, source=source, table=str(table), remedy=remedy) from None
        views = [view for (view,) in connection.execute(_VIEWS, (live.quoted,))]
        if not views:
            raise shapes.misshapen(what, source, live, table) from None
        remedy = f"in the ODS drop what depends on it ({', '.join(views)}), {again}, and make that again"
        raise TableMisshapen(what, source=source, table=str(table), remedy=remedy) from None


def _grants(connection: psycopg.Connection, relation: Relation, to: Relation) -> str:
    """What our role lacks to alter it: only its owner may, and give it a name only who may create in that schema."""
    role = sql.Identifier(connection.info.user).as_string(None)
    lacking = connection.execute(_LACKING, {"relation": relation.quoted, "schemas": [relation.schema, to.schema]})
    grants = [f"{what} TO {role};" for (what,) in lacking.fetchall()]
    return f"in the ODS: {' '.join(grants) or f'let {role} do it,'}"


def lock(connection: psycopg.Connection, source: str, relation: Relation, table: Table) -> None:
    """Keep readers away for the rest of the transaction. Raises TargetUnreachable after a while.

    Whoever keeps readers of one table waiting must not wait in line for another: a reader of both could be the one that
    PostgreSQL ends as the victim of a deadlock. We look whether it is free instead, and give way when it stays taken.
    https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-DEADLOCKS
    """
    others_wait = connection.execute(_KEEPS_OTHERS_WAITING).fetchone() is not None
    deadline = time.monotonic() + _PATIENCE
    while not _locked(connection, relation, _NOWAIT if others_wait else _IN_LINE):
        if not others_wait or time.monotonic() > deadline:
            (holder,) = connection.execute(_HOLDERS, (relation.quoted,)).fetchone() or (None,)
            raise TargetUnreachable(
                f"a transaction in the ODS (pid {holder}) holds {relation.quoted}, whose shape is to change",
                source=source,
                table=str(table),
                remedy="end that transaction; all goes on as soon as it is gone",
            )
        time.sleep(_POLL)


def _locked(connection: psycopg.Connection, relation: Relation, statement: str) -> bool:
    try:
        with connection.transaction():
            connection.execute(sql.SQL(statement).format(relation.identifier))
    except psycopg.errors.LockNotAvailable:
        return False
    return True
