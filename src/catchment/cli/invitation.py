"""The SQL with which a team lets Catchment in."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")

_INVITATION = """\
-- Lets Catchment follow this database. Run it once, connected to the database of source {source}, as a superuser.
-- Nothing is installed and nothing is written to your tables.

-- The role it connects as. It needs a password of your choice: \\password {role}
-- Leave this statement out when the role exists already; then: ALTER ROLE {role} REPLICATION;
CREATE ROLE {role} LOGIN REPLICATION;

-- What the role may read. Repeat both statements for every schema that you share.
GRANT USAGE ON SCHEMA public TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};

-- Tables that the role running this makes later; for another role's: ALTER DEFAULT PRIVILEGES FOR ROLE other IN …
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {role};

-- What is shared: your data contract. This shares all tables of the schema, later ones too; it takes a superuser and
-- PostgreSQL 15 or newer. To share less, or on PostgreSQL 14, name tables instead; their owner may do that:
--   CREATE PUBLICATION {publication} FOR TABLE customers, orders;
-- From PostgreSQL 15 on some columns (the key among them) and some rows of a table:
--   CREATE PUBLICATION {publication} FOR TABLE customers (id, name), orders WHERE (total > 0);
CREATE PUBLICATION {publication} FOR TABLES IN SCHEMA public WITH (publish_via_partition_root = true);
"""


def invitation(source: str, role: str, publication: str) -> str:
    """SQL that psql runs as it is; https://www.postgresql.org/docs/current/logical-replication-security.html"""
    return _INVITATION.format(source=source, role=_quoted(role), publication=_quoted(publication))


def _quoted(name: str) -> str:
    if _PLAIN.fullmatch(name):
        return name
    return '"' + name.replace('"', '""') + '"'
