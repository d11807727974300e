"""The three services: each has a database of its own, and a schema that only its team decides on.

For each there is ``NAME.sql``, its schema and its publication, and ``NAME_history.sql``, its share of the past. The ODS
begins with ``ods.sql``.
"""

from __future__ import annotations

from importlib.resources import files

SERVICES = ("orders", "payments", "shipping")
"""The names of the services and of their databases."""

ODS = "ods"
"""The name of its database."""


def schema(name: str) -> str:
    """The SQL that makes a service's tables, its publication and who may read it; or that prepares the ODS."""
    return files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")


def history(service: str) -> str:
    """The SQL that fills a service's tables from the temporary tables ``past`` and ``past_lines``."""
    return files(__name__).joinpath(f"{service}_history.sql").read_text(encoding="utf-8")
