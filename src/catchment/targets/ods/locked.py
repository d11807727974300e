"""A lock that somebody has in the ODS is waited for, but not without end, and he is named."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from catchment.model.errors import TargetUnreachable
from catchment.postgres.connection import Translation, connect
from catchment.targets.ods.naming import Relation
from catchment.targets.ods.session import LOCK, LOCK_TIMEOUT

# Who has one of these on a table, or is before us in the line for it, may keep its rows from being changed: the last
# two are those of people who change or lock rows themselves.
# https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
_AGAINST_CHANGES = (
    "AccessExclusiveLock",
    "ExclusiveLock",
    "ShareRowExclusiveLock",
    "ShareLock",
    "RowExclusiveLock",
    "RowShareLock",
)
_AGAINST_DROPPING = (*_AGAINST_CHANGES, "ShareUpdateExclusiveLock", "AccessShareLock")

_AT_TABLES = """
SELECT l.pid, l.granted, n.nspname::text, c.relname::text
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.relation IN (SELECT to_regclass(name) FROM unnest(%(tables)s::text[]) name)
  AND l.mode = ANY (%(modes)s) AND l.pid <> %(own)s
ORDER BY array_position(%(modes)s, l.mode), l.granted DESC, l.pid LIMIT 1
"""
_AT_SOURCE = """
SELECT pid FROM pg_locks
WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> %(own)s AND granted
  AND locktype = 'advisory' AND classid = %(lock)s AND objid = hashtext(%(source)s)::oid AND objsubid = 2
"""


class Locked(Exception):  # it leaves the ODS as TargetUnreachable
    """What was to be done to these tables waited too long for a lock; the transaction is lost.

    Without a table it is the lock of the source, which each transaction begins with, or one on what is Catchment's own.
    """

    def __init__(self, tables: Sequence[Relation] = (), dropping: bool = False) -> None:
        super().__init__()
        self.tables = tables
        self.modes = _AGAINST_DROPPING if dropping else _AGAINST_CHANGES


def in_the_way(dsn: str, translation: Translation, own: int, locked: Locked) -> TargetUnreachable:
    """The error that says who it is. ``own``: the server's process that has waited in vain."""
    tables = [table.quoted for table in locked.tables]
    said = {"own": own, "tables": tables, "modes": list(locked.modes), "lock": LOCK, "source": translation.source}
    with closing(connect(dsn, translation)) as connection, translation.around():
        found = connection.execute(_AT_TABLES if tables else _AT_SOURCE, said).fetchone()
    if found is None:
        where = ", ".join(tables[:1]) or "what Catchment keeps there"
        what, remedy = f"a lock on {where} in the ODS was not to be had for {LOCK_TIMEOUT}", "it is tried again"
    elif tables:
        pid, granted, schema, name = found
        does = "holds" if granted else "waits for"
        what = f"a transaction in the ODS (pid {pid}) {does} {Relation(schema, name).quoted}, which is to change"
        remedy = "let it end, or end it; all goes on as soon as it is gone"
    else:
        what = f"another session of Catchment in the ODS (pid {found[0]}) is at work on this source"
        remedy = "all goes on as soon as it is done; if no hub or command of yours has it, end it"
    return TargetUnreachable(what, source=translation.source, remedy=remedy)
