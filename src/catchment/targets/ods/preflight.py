"""Preflight of the ODS: what would stop it, and how what the sources share will look in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import psycopg

from catchment.model.errors import CatchmentError, ConfigError, TableMisshapen
from catchment.model.table import Table
from catchment.postgres.connection import connect, of_target
from catchment.postgres.finding import Check, Finding, named
from catchment.postgres.preflight import Report
from catchment.postgres.preflight.asking import current_role, one, quoted
from catchment.postgres.preflight.server import check_connection, check_server
from catchment.targets.ods.columns import ods_types
from catchment.targets.ods.meddling import Meddling
from catchment.targets.ods.naming import OWN_SCHEMA, Relation, live_relation
from catchment.targets.ods.registry import Registry, prepare
from catchment.targets.ods.session import Session

SAME_DATABASE = Check(
    "ods_apart",
    "error",
    "database {database} is also that of source {source}",
    "what is written to the ODS would come back as changes of that source",
    "give [ods] a database of its own",
)
NOT_UTF8 = Check(
    "ods_encoding",
    "error",
    "the database's encoding is {encoding}",
    "it cannot hold every character that a source may have",
    "CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'; and name that one in [ods] dsn",
)
NO_PRIVILEGE = Check(
    "ods_privilege",
    "error",
    "privilege {privilege} on the database is missing",
    "{reason}",
    "GRANT {privilege} ON DATABASE {database} TO {role};",
)
FEW_CONNECTIONS = Check(
    "ods_connections",
    "warning",
    "only {free} of {most} connections are free",
    "each worker of a hub uses up to four",
    "ALTER SYSTEM SET max_connections = {more}; then restart the server",
)
OWN_SCHEMA_TAKEN = Check(
    "ods_own_schema",
    "error",
    "schema catchment exists, and Catchment did not make it",
    "Catchment keeps there what it knows of the ODS",
    "ALTER SCHEMA catchment RENAME TO …; or DROP SCHEMA catchment; if it is empty",
)
OTHER_OWNER = Check(
    "ods_owner",
    "error",
    "schema {schema} belongs to role {owner}",
    "Catchment has to alter what is in it",
    "GRANT {owner_name} TO {role};",
)
TABLE_TAKEN = Check(
    "ods_table",
    "error",
    "{table} exists, and Catchment did not make it",
    "the table that is shared cannot appear there",
    "ALTER {kind} {table} RENAME TO …; or give the source another name",
)
SCHEMA_SHARED = Check(
    "ods_schema",
    "notice",
    "schema {schema} has things in it that Catchment did not make",
    "they stay, and a shared table of the same name cannot appear",
)
NAME_TOO_LONG = Check(
    "ods_name", "error", "it cannot have its name in the ODS: {what}", "PostgreSQL would cut it", "{remedy}"
)
STOPPED = Check(
    "ods_stopped",
    "error",
    "it is stopped: {what}",
    "readers keep what they see of it, which takes no changes",
    "{remedy}",
)
DROPPED = Check(
    "ods_dropped",
    "notice",
    "somebody dropped or renamed it in the ODS",
    "a running hub reads it again",
)
LANDS_AS_TEXT = Check(
    "ods_text",
    "notice",
    "lands as text: {columns}",
    "these types are the source's own",
)
EXTENSION_MISSING = Check(
    "ods_extension",
    "warning",
    "lands as text: {columns}",
    "the ODS does not have extension {extension}",
    "{remedy}",
)
OTHER_LOCALE = Check(
    "ods_locale",
    "warning",
    "its key has citext: {columns}, and the locale is {source}, in the ODS {ods}",
    "keys that are different at the source may be the same in the ODS, which then lacks a row",
    "give the ODS a database with the source's locale (LC_CTYPE), or without extension citext: it lands as text then",
)

_OLDEST = 15  # MERGE
_FEW_CONNECTIONS = 5

_FREE_CONNECTIONS = """
SELECT most, most - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') + 1
FROM (SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0)) AS there_are (most)
"""

# By the catalog: to_regclass does not answer a role that may not enter the schema.
_PREPARED = """
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = 'catchment' AND c.relname = 'tables')
"""

# Of what is ours one must be the owner, to alter it; in a schema that was made for us one must be able to create.
_BARRED = """
SELECT schema, pg_get_userbyid(owner)::text, quote_ident(pg_get_userbyid(owner)) FROM (
    SELECT nspname::text, nspowner FROM pg_namespace
    WHERE nspname = ANY (%(schemas)s)
      AND NOT (has_schema_privilege(oid, 'USAGE') AND has_schema_privilege(oid, 'CREATE'))
    UNION
    SELECT n.nspname::text, c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'catchment' AND c.relname = ANY ('{tables,frontier}')
) AS needed (schema, owner)
WHERE NOT pg_has_role(owner, 'USAGE') ORDER BY schema
"""

_RELATIONS = """
SELECT n.nspname::text, c.relname::text,
    CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE'
        WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
ORDER BY n.nspname, c.relname
"""


def check_ods(dsn: str, datasets: Mapping[str, str], sources: Mapping[str, Report]) -> Report:
    """Everything that the ODS needs of its server. Raises ConfigError for a dsn that cannot be read.

    ``datasets``: where a source's rows land, by source; ``sources``: what was found there.
    """
    shared = {source: report.tables for source, report in sources.items()}
    where = "ods"
    translation = of_target()
    report = Report()
    try:
        with closing(connect(dsn, translation)) as connection, translation.around():
            report.findings += check_server(connection, where, _OLDEST)
            if not report.findings:
                report.locate(connection)
                report.findings += _apart(report, sources)
                report.findings += check_connection(connection, where)
                report.findings += _room(connection)
                report.findings += _names(connection, datasets, shared)
                report.findings += _types(connection, shared)
                report.findings += _citext(connection, report, sources)
                report.conclude(connection, where, "room for every dataset")
    except ConfigError:
        raise
    except CatchmentError as error:
        report.broken_off(error, where)
    return report


def _apart(ods: Report, sources: Mapping[str, Report]) -> Iterator[Finding]:
    for source, report in sources.items():
        if report.system is not None and (report.system, report.database) == (ods.system, ods.database):
            yield SAME_DATABASE.found("ods", database=ods.database, source=source)


def _room(connection: psycopg.Connection) -> Iterator[Finding]:
    if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
        yield NOT_UTF8.found("ods", encoding=encoding)
    for privilege, reason in (("CREATE", "each dataset is a schema"), ("TEMPORARY", "changes wait in such tables")):
        if not one(connection, "SELECT has_database_privilege(current_database(), %s)", privilege):
            said = {"database": quoted(connection.info.dbname), "role": current_role(connection)}
            yield NO_PRIVILEGE.found("ods", reason=reason, privilege=privilege, **said)
    row = connection.execute(_FREE_CONNECTIONS).fetchone()
    if row is not None and row[1] < _FEW_CONNECTIONS:
        yield FEW_CONNECTIONS.found("ods", most=row[0], free=max(0, row[1]), more=row[0] + 20)


def _names(
    connection: psycopg.Connection, datasets: Mapping[str, str], shared: Mapping[str, Sequence[Table]]
) -> Iterator[Finding]:
    """Whether what lands in the ODS has its names to itself."""
    places: dict[Relation, str] = {}
    for source, tables in shared.items():
        for table in tables:
            try:
                places[live_relation(source, datasets[source], table)] = f"ods, source {source}, table {table}"
            except TableMisshapen as error:
                yield NAME_TOO_LONG.found(f"ods, {error.where}", what=error.what, remedy=error.remedy)
    schemas = {*datasets.values(), *(relation.schema for relation in places)}
    role = current_role(connection)
    barred = connection.execute(_BARRED, {"schemas": [OWN_SCHEMA, *sorted(schemas)]}).fetchall()
    for schema, owner, owner_name in barred:
        yield OTHER_OWNER.found("ods", schema=schema, owner=owner, owner_name=owner_name, role=role)
    if barred:
        return
    prepared = one(connection, _PREPARED)
    if not prepared and one(connection, "SELECT to_regnamespace('catchment') IS NOT NULL"):
        yield OWN_SCHEMA_TAKEN.found("ods")
    if prepared:
        prepare(connection)
        for source in shared:
            yield from _standing(connection, source)
    known = "SELECT schema, name FROM catchment.tables WHERE schema <> ''"
    ours = {Relation(*row) for row in connection.execute(known)} if prepared else set()
    strangers = {
        Relation(schema, name): kind
        for schema, name, kind in connection.execute(_RELATIONS, (sorted(schemas),))
        if Relation(schema, name) not in ours
    }
    for relation in strangers.keys() & places.keys():
        yield TABLE_TAKEN.found(places[relation], table=relation.quoted, kind=strangers[relation])
    for schema in sorted({relation.schema for relation in strangers} - {relation.schema for relation in ours}):
        yield SCHEMA_SHARED.found("ods", schema=schema)


def _standing(connection: psycopg.Connection, source: str) -> Iterator[Finding]:
    """What the ODS has of this source, and does not keep up to date."""
    session = Session(connection)
    stopped = dict(Registry(session, source).out_of_date())
    stopped |= {str(error.table): str(error) for _, error in Meddling(source).found(session) if error}
    for table, sentence in stopped.items():
        where = f"ods, source {source}, table {table}"
        if sentence is None:
            yield DROPPED.found(where)
        else:
            what, _, remedy = sentence.removeprefix(f"source {source}, table {table}: ").partition("; ")
            yield STOPPED.found(where, what=what, remedy=remedy)


def _types(connection: psycopg.Connection, shared: Mapping[str, Sequence[Table]]) -> Iterator[Finding]:
    """Columns whose type the ODS does not have."""
    for source, tables in shared.items():
        for table in tables:
            own: list[str] = []
            of_extension: dict[str, list[str]] = {}
            for column, found in zip(table.columns, ods_types(connection, table), strict=True):
                if found == "text" and (column.type_schema, column.type_name) != ("pg_catalog", "text"):
                    columns = of_extension.setdefault(column.type_extension, []) if column.type_extension else own
                    columns.append(f"{column.name} ({column.type_name})")
            where = f"ods, source {source}, table {table}"
            if own:
                yield LANDS_AS_TEXT.found(where, columns=named(own))
            for extension, columns in of_extension.items():
                yield from _extension(connection, where, extension, columns)


def _extension(connection: psycopg.Connection, where: str, extension: str, columns: list[str]) -> Iterator[Finding]:
    if one(connection, "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = %s)", extension):
        yield LANDS_AS_TEXT.found(where, columns=named(columns))  # it cannot be in a key
        return
    remedy = "install its package on the server of the ODS before the first run, then create it there"
    if one(connection, "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = %s)", extension):
        remedy = f"in the ODS, before the first run: CREATE EXTENSION {quoted(extension)};"
    yield EXTENSION_MISSING.found(where, columns=named(columns), extension=extension, remedy=remedy)


def _citext(connection: psycopg.Connection, ods: Report, sources: Mapping[str, Report]) -> Iterator[Finding]:
    """Keys whose equality depends on the database."""
    for source, report in sources.items():
        if report.locale is None or _plain(report.locale) == _plain(ods.locale or ""):
            continue
        for table in report.tables:
            types = ods_types(connection, table)
            columns = [
                table.columns[position].name
                for position in table.key_positions
                if table.columns[position].type_extension == "citext" and types[position] != "text"
            ]
            if columns:
                where = f"ods, source {source}, table {table}"
                yield OTHER_LOCALE.found(where, columns=named(columns), source=report.locale, ods=ods.locale)


def _plain(locale: str) -> str:
    """The same for spellings of one locale: C.UTF-8, C.utf8."""
    return locale.lower().replace("-", "")
