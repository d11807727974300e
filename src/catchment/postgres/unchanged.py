"""Whether a server has anything new, cheaply enough to ask often: what has not changed need not be looked at again."""

from __future__ import annotations

import psycopg

from catchment.postgres.connection import Translation

_CATALOGS = (
    "pg_attribute",
    "pg_class",
    "pg_depend",
    "pg_enum",
    "pg_extension",
    "pg_index",
    "pg_inherits",
    "pg_namespace",
    "pg_publication",
    "pg_publication_rel",
    "pg_range",
    "pg_type",
)
"""All that ``published_tables`` reads."""


PULSE = "concat_ws(' ', pg_current_snapshot(), pg_current_wal_insert_lsn())"
"""The text that ``pulse`` returns, for a query that asks for more."""


def pulse(connection: psycopg.Connection, translation: Translation) -> str:
    """A text that stays the same only while nobody has written anything to the server, and no row can be seen that
    could not be before: what was looked at just after it need not be looked at again.

    The position alone would not do: a transaction that waits for a standby can be seen long after its commit is in the
    WAL. The snapshot alone would not: what VACUUM changes in place has no transaction.
    """
    with translation.around():
        ((text,),) = connection.execute(f"SELECT {PULSE}")
    return str(text)


def catalog_digest(connection: psycopg.Connection, translation: Translation) -> str:
    """A text that stays the same only while ``published_tables`` does, but for the planner's estimates.

    Every transaction that changes a catalog leaves rows with its own ``xmin``, or fewer rows. To add them up costs some
    µs a table; to say what the tables look like, a hundred times as much. Raises the translation's errors.
    https://www.postgresql.org/docs/current/ddl-system-columns.html
    """
    catalogs = _CATALOGS + (("pg_publication_namespace",) if connection.info.server_version >= 150000 else ())
    counted = "SELECT concat(count(*), ' ', sum(hashint8extended(xmin::text::bigint, 0))) FROM pg_catalog.{}"
    digests = ", ".join(f"({counted.format(name)})" for name in catalogs)
    with translation.around():
        ((text,),) = connection.execute(f"SELECT concat_ws(' ', {digests})")
    return str(text)
