"""Short questions to a server."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql


def one(connection: psycopg.Connection, query: str, *values: object) -> Any:
    """The first column of the first row; null when there is none."""
    row = connection.execute(query, values or None).fetchone()
    return row[0] if row else None


def quoted(*names: str) -> str:
    """A name as SQL has it."""
    return sql.Identifier(*names).as_string(None)


def current_role(connection: psycopg.Connection) -> str:
    """The role that we are, as SQL has it."""
    return str(one(connection, "SELECT quote_ident(current_user)"))
