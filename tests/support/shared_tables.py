"""What a source shares, and whether the ODS has the same: every table in every schema, as PostgreSQL prints it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
from psycopg import sql

Rows = list[tuple[str | None, ...]]


def shared(dsn: str) -> list[tuple[str, str, list[str], str | None]]:
    """Schema, name, columns and row filter of each table."""
    query = """SELECT schemaname, tablename, attnames::text[], rowfilter FROM pg_publication_tables
               WHERE pubname = 'catchment' ORDER BY 1, 2"""
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


def printed(dsn: str, relation: sql.Composable, columns: list[str], where: str | None) -> Rows:
    """All rows, in an order that does not depend on the server."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    condition = sql.SQL(f" WHERE {where}" if where else "")
    statement = sql.SQL("COPY (SELECT {} FROM {}{}) TO STDOUT").format(names, relation, condition)
    with psycopg.connect(dsn, options="-c TimeZone=UTC") as connection, connection.cursor().copy(statement) as copy:
        return sorted(copy.rows(), key=repr)


def sources_rows(dsn: str) -> dict[tuple[str, str], tuple[list[str], Rows]]:
    """The columns and rows of each table as they are shared."""
    return {
        (schema, table): (columns, printed(dsn, sql.Identifier(schema, table), columns, where))
        for schema, table, columns, where in shared(dsn)
    }


def differences(source: str, ods: str, dataset: str) -> Iterator[str]:
    """A sentence for each table that is not the same in the ODS."""
    for (schema, table), (columns, there) in sources_rows(source).items():
        place = sql.Identifier(dataset if schema == "public" else f"{dataset}__{schema}", table)
        try:
            here = printed(ods, place, columns, None)
        except psycopg.Error as error:
            yield f"ODS {schema}.{table}: {error}"
            continue
        if here != there:
            yield f"ODS {schema}.{table}: {difference(here, there)}"


def difference(here: Rows, there: Rows) -> str:
    """How many rows, and some of those that only one has."""
    return f"{len(here)} for {len(there)} rows, {sorted({*here} ^ {*there}, key=repr)[:4]}"
