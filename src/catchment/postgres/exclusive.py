"""Whether somebody wants a table for himself: all who come after him wait until he has had it."""

from __future__ import annotations

import psycopg

# Planning a query locks every partition and every index until its transaction ends. REINDEX waits for an index, and
# keeps writers of the table out meanwhile.
_WAITING = """
WITH part AS (
    SELECT %(table)s::oid AS oid UNION ALL SELECT relid FROM pg_partition_tree(%(table)s)
)
SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'
  AND relation IN (SELECT oid FROM part UNION ALL SELECT indexrelid FROM pg_index JOIN part ON indrelid = part.oid)
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def wanted_exclusively(connection: psycopg.Connection, table: int) -> bool:
    """Whether somebody waits for an exclusive lock on this table, a part or an index of it. Raises psycopg's errors.

    https://www.postgresql.org/docs/current/view-pg-locks.html
    """
    return connection.execute(_WAITING, {"table": table}).fetchone() is not None
