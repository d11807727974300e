"""What things are called in the ODS."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from catchment.model.errors import TableMisshapen
from catchment.model.table import Table

OWN_SCHEMA = "catchment"
_LONGEST = 63
"""Bytes of an identifier: https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS"""


@dataclass(frozen=True, slots=True)
class Relation:
    """A table in the ODS."""

    schema: str
    name: str

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @property
    def quoted(self) -> str:
        """As a person types it."""
        return self.identifier.as_string(None)


def live_relation(source: str, dataset: str, table: Table) -> Relation:
    """Where readers find the table. Raises TableMisshapen when PostgreSQL would cut the schema's name."""
    schema = dataset if table.schema == "public" else f"{dataset}__{table.schema}"
    if len(schema.encode()) > _LONGEST:
        raise TableMisshapen(
            f"its schema in the ODS would be called {schema}, which is longer than {_LONGEST} bytes",
            source=source,
            table=str(table),
            remedy="give the source a shorter name, or leave the table out of the publication",
        )
    return Relation(schema, table.name)


def shadow_relation(source: str, oid: int) -> Relation:
    """Where a refill of the table with this oid is built up."""
    return Relation(OWN_SCHEMA, f"shadow_{source}_{oid}")


def shortened(name: str, suffix: str) -> str:
    """The name with the suffix, cut as PostgreSQL would, but before the suffix."""
    return name.encode()[: _LONGEST - len(suffix.encode())].decode(errors="ignore") + suffix
