"""Preflight: what would stop a source, said before it does, with the statement that removes it."""

from __future__ import annotations

from contextlib import closing

import psycopg

from catchment.model.errors import CatchmentError, ConfigError
from catchment.postgres.catalog import published_tables
from catchment.postgres.connection import Translation, connect, of_source
from catchment.postgres.preflight.identity import check_identities
from catchment.postgres.preflight.publication import check_publication
from catchment.postgres.preflight.report import Report
from catchment.postgres.preflight.server import check_server, check_settings
from catchment.postgres.preflight.slot import Hub, Logged, check_slot, free_senders, free_slots
from catchment.postgres.preflight.tables import check_tables
from catchment.postgres.preflight.together import check_together
from catchment.postgres.slot import slot_exists
from catchment.postgres.source import Source

__all__ = ["Hub", "Logged", "Report", "check_source", "check_together"]

NO_HUB = Hub()


def check_source(source: Source, hub: Hub = NO_HUB) -> Report:
    """Everything that a collector needs of a source's server. Raises ConfigError for a dsn that cannot be read.

    ``hub``: what is known here of the source. An unreachable server is a finding.
    https://www.postgresql.org/docs/current/logical-replication-config.html
    """
    where = f"source {source.name}"
    translation = of_source(source.name)
    report = Report()
    try:
        with closing(connect(source.dsn, translation)) as connection, translation.around():
            report.findings += check_server(connection, where)
            if not report.findings:
                _look(report, connection, source, where, translation, hub)
    except ConfigError:
        raise
    except CatchmentError as error:
        report.broken_off(error, where)
    return report


def _look(
    report: Report, connection: psycopg.Connection, source: Source, where: str, translation: Translation, hub: Hub
) -> None:
    connection.execute("SET lock_timeout = '5s'")  # a catalog query may meet somebody's exclusive lock
    report.locate(connection)
    report.slots = most_slots, used_slots = free_slots(connection)
    report.wants_slot = not slot_exists(connection, source.slot, translation)
    report.findings += check_settings(connection, where)
    report.findings += check_slot(connection, source, where, translation, hub)
    report.findings += check_publication(connection, source, where)
    published = published_tables(connection, source.publication, translation)
    report.tables = tuple(shared.table for shared in published.values())
    report.findings += check_tables(connection, source, published)
    report.findings += check_identities(connection, source, published)
    most_senders, used_senders = free_senders(connection)
    free = (
        f"{most_slots - used_slots} of {most_slots} replication slots, "
        f"{most_senders - used_senders} of {most_senders} walsenders"
    )
    report.conclude(connection, where, f"tables shared: {len(published)}; free: {free}")
