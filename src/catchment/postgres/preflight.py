"""Preflight: what would stop a source or the ODS, said before it does, with the statement that removes it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import psycopg
from psycopg import sql

from catchment.model.errors import CatchmentError, TargetRefused, TargetUnreachable
from catchment.postgres.catalog import published_tables
from catchment.postgres.connection import Translation, connect, of_source
from catchment.postgres.finding import Finding
from catchment.postgres.preflight_tables import check_tables
from catchment.postgres.replication import ReplicationConnection
from catchment.postgres.slot import start_over
from catchment.postgres.source import Source

_OLDEST_SOURCE, _OLDEST_ODS = 14, 15
_OWN_SCHEMA = "catchment"


def check_source(source: Source) -> list[Finding]:
    """Everything that a collector needs of a source's server. Raises nothing of ours: an unreachable one is a finding.

    https://www.postgresql.org/docs/current/logical-replication-config.html
    """
    where = f"source {source.name}"
    translation = of_source(source.name)
    found: list[Finding] = []
    try:
        with closing(connect(source.dsn, translation)) as connection, translation.around():
            found += _server(connection, where, _OLDEST_SOURCE)
            if not found:
                found += _replication(connection, source, where, translation)
                found += _publication(connection, source, where)
                published = published_tables(connection, source.publication, translation)
                found += check_tables(connection, source, published)
                if all(finding.level != "error" for finding in found):
                    found.insert(0, _ready(connection, where, f"{len(published)} tables are shared"))
    except CatchmentError as error:
        found.append(_failure(error, where))
    return found


def check_ods(dsn: str, datasets: Sequence[str]) -> list[Finding]:
    """Everything that the ODS needs of its server, to hold these datasets. Raises nothing of ours."""
    where = "ods"
    translation = Translation(TargetUnreachable, TargetRefused)
    found: list[Finding] = []
    try:
        with closing(connect(dsn, translation)) as connection, translation.around():
            found += _server(connection, where, _OLDEST_ODS)
            if not found:
                found += _room(connection, datasets)
                if all(finding.level != "error" for finding in found):
                    found.insert(0, _ready(connection, where, "room for every dataset"))
    except CatchmentError as error:
        found.append(_failure(error, where))
    return found


def _failure(error: CatchmentError, where: str) -> Finding:
    return Finding("error", error.where or where, error.what, error.remedy or "")


def _ready(connection: psycopg.Connection, where: str, what: str) -> Finding:
    version = connection.info.parameter_status("server_version") or ""
    return Finding("good", where, f"PostgreSQL {version.split()[0]}, {what}")


def _server(connection: psycopg.Connection, where: str, oldest: int) -> Iterator[Finding]:
    if connection.info.server_version < oldest * 10000:
        version = connection.info.parameter_status("server_version")
        yield Finding("error", where, f"PostgreSQL {version} is too old", f"upgrade to {oldest} or newer")
    elif _one(connection, "SELECT pg_is_in_recovery()"):
        yield Finding("error", where, "the server is a standby", "let the dsn name the primary")


def _replication(
    connection: psycopg.Connection, source: Source, where: str, translation: Translation
) -> Iterator[Finding]:
    level = _one(connection, "SHOW wal_level")
    if level != "logical":
        remedy = "ALTER SYSTEM SET wal_level = 'logical'; then restart the server"
        yield Finding("error", where, f"wal_level is {level}", remedy)
    if _one(connection, "SHOW server_encoding") == "SQL_ASCII":
        what = "the database's encoding is SQL_ASCII: a value that is not UTF-8 stops its table"
        yield Finding("warning", where, what, "make sure that all clients write UTF-8")
    active = yield from _slot(connection, source, where)
    if not active:
        yield from _walsender(connection, source, where, translation)


def _slot(connection: psycopg.Connection, source: Source, where: str) -> Generator[Finding, None, bool]:
    """Whether the slot is there or can be made; returns whether somebody, most likely our hub, streams from it."""
    row = connection.execute(
        """SELECT active, plugin = 'pgoutput' AND database = current_database() AND NOT temporary, wal_status
           FROM pg_replication_slots WHERE slot_name = %s""",
        (source.slot,),
    ).fetchone()
    if row is None:
        most = _one(connection, "SELECT current_setting('max_replication_slots')::int")
        used = _one(connection, "SELECT count(*) FROM pg_replication_slots")
        if used >= most:
            remedy = f"ALTER SYSTEM SET max_replication_slots = {used + 1}; then restart the server"
            yield Finding("error", where, f"all {most} replication slots are in use", remedy)
        return False
    active, ours, wal_status = row
    if not ours:
        what = f"slot {source.slot} is not a permanent pgoutput slot of this database"
        yield Finding("error", where, what, "give the source another slot in catchment.toml")
    elif wal_status == "lost":
        yield Finding("error", where, f"slot {source.slot} was invalidated by the server", start_over(source.name))
    return bool(active)


def _walsender(
    connection: psycopg.Connection, source: Source, where: str, translation: Translation
) -> Iterator[Finding]:
    """Connects as the stream will: privileges that a provider grants in its own way and poolers show only so."""
    try:
        ReplicationConnection(source.dsn, translation).close()
    except CatchmentError as error:
        most = _one(connection, "SELECT current_setting('max_wal_senders')::int")
        used = _one(connection, "SELECT count(*) FROM pg_stat_replication")
        allowed = _one(connection, "SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user")
        what, remedy = f"no replication connection: {error.what}", "let the dsn name the server, not a pooler before it"
        if used >= most:
            what = f"all {most} walsenders are in use"
            remedy = f"ALTER SYSTEM SET max_wal_senders = {used + 1}; then restart the server"
        elif not allowed:
            what, remedy = "privilege REPLICATION is missing", f"ALTER ROLE {_role(connection)} REPLICATION;"
        yield Finding("error", where, what, remedy)


def _publication(connection: psycopg.Connection, source: Source, where: str) -> Iterator[Finding]:
    name = sql.Identifier(source.publication).as_string(None)
    row = connection.execute(
        """SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate, EXISTS (
               SELECT FROM pg_publication_tables WHERE pubname = p.pubname)
           FROM pg_publication p WHERE pubname = %s""",
        (source.publication,),
    ).fetchone()
    if row is None:
        remedy = f"run what `catchment source sql {source.name}` prints, or CREATE PUBLICATION {name} FOR TABLE …;"
        yield Finding("error", where, f"publication {source.publication} does not exist", remedy)
        return
    publishes_all, shares_tables = row
    if not shares_tables:
        remedy = f"ALTER PUBLICATION {name} ADD TABLE …;"
        yield Finding("error", where, f"publication {source.publication} shares no table", remedy)
    elif not publishes_all:
        what = f"publication {source.publication} leaves out some operations: targets will differ from the source"
        remedy = f"ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate');"
        yield Finding("warning", where, what, remedy)


def _room(connection: psycopg.Connection, datasets: Sequence[str]) -> Iterator[Finding]:
    database = sql.Identifier(connection.info.dbname).as_string(None)
    if _one(connection, "SHOW server_encoding") != "UTF8":
        what = "the database's encoding is not UTF8: it cannot hold all that a source may have"
        yield Finding("warning", "ods", what, "CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8';")
    for privilege in ("CREATE", "TEMPORARY"):
        if not _one(connection, f"SELECT has_database_privilege(current_database(), '{privilege}')"):
            remedy = f"GRANT {privilege} ON DATABASE {database} TO {_role(connection)};"
            yield Finding("error", "ods", f"privilege {privilege} on the database is missing", remedy)
    for schema in _foreign_schemas(connection, datasets):
        name = sql.Identifier(schema).as_string(None)
        what = f"schema {schema} has tables that Catchment did not make"
        yield Finding("error", "ods", what, f"ALTER SCHEMA {name} RENAME TO …; or give the source another name")


def _foreign_schemas(connection: psycopg.Connection, datasets: Sequence[str]) -> list[str]:
    """Schemas with tables, named as ours would be, of which nothing is known in the ODS's own records."""
    ours: list[str] = []
    if _one(connection, f"SELECT to_regclass('{_OWN_SCHEMA}.tables') IS NOT NULL"):
        ours = [_OWN_SCHEMA]
        ours += [
            row[0] for row in connection.execute("SELECT DISTINCT schema FROM catchment.tables WHERE schema <> ''")
        ]
    rows = connection.execute(
        """SELECT n.nspname FROM pg_namespace n
           WHERE (n.nspname = %(own)s OR split_part(n.nspname, '__', 1) = ANY (%(datasets)s))
             AND n.nspname <> ALL (%(ours)s)
             AND EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f'))
           ORDER BY n.nspname""",
        {"own": _OWN_SCHEMA, "datasets": list(datasets), "ours": ours},
    )
    return [row[0] for row in rows]


def _role(connection: psycopg.Connection) -> str:
    return str(_one(connection, "SELECT quote_ident(current_user)"))


def _one(connection: psycopg.Connection, query: str) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None
