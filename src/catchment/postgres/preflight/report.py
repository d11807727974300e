"""What was found about one server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import psycopg

from catchment.model.errors import CatchmentError
from catchment.model.table import Table
from catchment.postgres.finding import Check, Finding
from catchment.postgres.preflight.asking import one

UNREACHABLE = Check(
    "connection", "error", "it cannot be looked at: {what}", "without an answer nothing can be said", "{remedy}"
)
POOLER = Check(
    "pooler",
    "error",
    "it cannot be looked at: {what}",
    "a connection pooler between does not let sessions have settings of their own",
    "let the dsn name the server itself",
)
UNUSABLE_STATE = Check("state", "error", "{what}", "a hub keeps its logs and all that it knows there", "{remedy}")
READY = Check("ready", "good", "PostgreSQL {version}, {what}", "")

# Which columns there are depends on the version.
_LOCALE = """
SELECT CASE d ->> 'datlocprovider' WHEN 'i' THEN 'ICU ' || locale WHEN 'b' THEN 'builtin ' || locale
       ELSE d ->> 'datctype' END
FROM (SELECT to_jsonb(p) FROM pg_database p WHERE datname = current_database()) AS known (d),
     coalesce(d ->> 'datlocale', d ->> 'daticulocale') AS locale
"""


@dataclass(slots=True)
class Report:
    """The findings, and what only a comparison with other servers can judge.

    ``system`` and ``database``: where it is, null when that could not be asked. ``locale``: what says which letters are
    the same but for their case. ``slots``: how many replication slots
    the server can have, and how many there are; ``wants_slot``: one more is needed for this source.
    """

    findings: list[Finding] = field(default_factory=list)
    tables: tuple[Table, ...] = ()
    system: str | None = None
    database: str | None = None
    locale: str | None = None
    slots: tuple[int, int] = (0, 0)
    wants_slot: bool = False

    def locate(self, connection: psycopg.Connection) -> None:
        """Note which cluster and which database of it this is; some providers keep that to themselves."""
        if one(connection, "SELECT has_function_privilege('pg_control_system()', 'EXECUTE')"):
            self.system = str(one(connection, "SELECT system_identifier FROM pg_control_system()"))
        self.database = connection.info.dbname
        self.locale = one(connection, _LOCALE)

    def broken_off(self, error: CatchmentError, where: str) -> Self:
        """Note what ended the questions."""
        pooled = "unsupported startup parameter" in error.what
        check = POOLER if pooled else UNREACHABLE
        self.findings.append(check.found(error.where or where, what=error.what, remedy=error.remedy))
        return self

    def conclude(self, connection: psycopg.Connection, where: str, what: str) -> None:
        """Say first that nothing is in the way, if that is so."""
        if all(finding.level != "error" for finding in self.findings):
            version = (connection.info.parameter_status("server_version") or "").split()[0]
            self.findings.insert(0, READY.found(where, version=version, what=what))
