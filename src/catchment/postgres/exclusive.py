"""Whether somebody wants a table for himself: all who come after him wait until he has had it."""

from __future__ import annotations

import psycopg

# A partitioned table's partitions count: who reads it has them locked too.
_WAITING = """
SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'
  AND (relation = %(table)s OR relation IN (SELECT relid FROM pg_partition_tree(%(table)s)))
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def wanted_exclusively(connection: psycopg.Connection, table: int) -> bool:
    """Whether somebody waits for an exclusive lock on this table. Raises psycopg's errors.

    https://www.postgresql.org/docs/current/view-pg-locks.html
    """
    return connection.execute(_WAITING, {"table": table}).fetchone() is not None
