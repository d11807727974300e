"""Preflight of what the creation of a slot would wait for."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from catchment.postgres.finding import Check, Finding
from catchment.postgres.preflight.asking import current_role, one

LONG_TRANSACTION = Check(
    "long_transaction",
    "warning",
    "process {pid} has a transaction open since {since} UTC ({who})",
    "the slot cannot be created before it has ended",
    "SELECT pg_terminate_backend({pid}); or end it where it was begun",
)
PREPARED_TRANSACTION = Check(
    "prepared_transaction",
    "warning",
    "transaction {name} of database {database} is prepared since {since} UTC",
    "the slot cannot be created before it has ended, and no process will end it",
    "in that database: ROLLBACK PREPARED {literal}; or COMMIT PREPARED {literal};",
)
HIDDEN_TRANSACTIONS = Check(
    "hidden_transactions",
    "notice",
    "role {role} may not see since when the transactions of other roles are open (processes {pids})",
    "the slot cannot be created before they have ended, and neither check nor run can say which is the old one",
    "GRANT pg_read_all_stats TO {role};",
)

LONG_SECONDS = 30.0
"""A transaction that is open for longer is worth a word."""

# Only a transaction that has a number is waited for; of other roles' sessions a role sees that number, not the time.
_OPEN = """
SELECT a.pid, to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SS'),
    concat_ws(', ', nullif(a.application_name, ''), a.usename::text, 'database ' || a.datname, a.state)
FROM pg_stat_activity a
WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_backend_pid()
  AND (a.xact_start IS NULL OR a.xact_start <= clock_timestamp() - %s * interval '1 second')
ORDER BY a.xact_start
"""
_PREPARED = """
SELECT gid, database::text, to_char(prepared, 'YYYY-MM-DD HH24:MI:SS'), quote_literal(gid)
FROM pg_prepared_xacts ORDER BY prepared
"""


def check_transactions(connection: psycopg.Connection, where: str) -> Iterator[Finding]:
    """Transactions in any database of the server that hold up a new slot.

    https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW
    """
    hidden = []
    for pid, since, who in connection.execute(_OPEN, (LONG_SECONDS,)):
        if since is None:
            hidden.append(pid)
        else:
            yield LONG_TRANSACTION.found(where, pid=pid, since=since, who=who)
    if hidden and not one(connection, "SELECT pg_has_role('pg_read_all_stats', 'USAGE')"):
        pids = ", ".join(map(str, sorted(hidden)))
        yield HIDDEN_TRANSACTIONS.found(where, role=current_role(connection), pids=pids)
    for name, database, since, literal in connection.execute(_PREPARED):
        yield PREPARED_TRANSACTION.found(where, name=name, database=database, since=since, literal=literal)
