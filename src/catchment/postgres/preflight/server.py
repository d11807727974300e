"""Preflight of a server: what it is, how it is reached, how it is set up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import psycopg

from catchment.postgres.finding import Check, Finding
from catchment.postgres.preflight.asking import one
from catchment.postgres.preflight.faults import check_minor_version

TOO_OLD = Check(
    "version",
    "error",
    "PostgreSQL {version} is too old",
    "it lacks what Catchment is built on",
    "upgrade to PostgreSQL {oldest} or newer",
)
STANDBY = Check(
    "standby",
    "error",
    "the server is a standby",
    "it cannot be written to, and backfills would read an older state than the stream tells",
    "let the dsn name the primary; with several hosts in it, add target_session_attrs=primary",
)
NOT_ENCRYPTED = Check(
    "tls",
    "warning",
    "the connection to {host} is not encrypted",
    "everybody on the way can read all rows",
    "add sslmode=verify-full to the dsn; the server needs ssl = on and a certificate",
)
SQL_ASCII = Check(
    "encoding",
    "warning",
    "the database's encoding is SQL_ASCII",
    "it takes bytes of any kind, and a value that is not UTF-8 stops its table",
    "make sure that all clients write UTF-8",
)
WAL_LEVEL = Check(
    "wal_level",
    "error",
    "wal_level is {level}",
    "the WAL has too little in it for logical decoding",
    "ALTER SYSTEM SET wal_level = 'logical'; then restart the server",
)
OUTPUT_PLUGIN = Check(
    "output_plugin_libraries",
    "error",
    "output_plugin_libraries does not have pgoutput in it",
    "the server refuses to decode with it",
    "ALTER SYSTEM SET output_plugin_libraries = {libraries}; SELECT pg_reload_conf();",
)
KEEPS_ALL_WAL = Check(
    "max_slot_wal_keep_size",
    "notice",
    "max_slot_wal_keep_size is unlimited",
    "while no hub runs, the server keeps all WAL, until its disk is full",
    "ALTER SYSTEM SET max_slot_wal_keep_size = '64GB'; SELECT pg_reload_conf(); or as much as its disk can spare",
)
KEEPS_LITTLE_WAL = Check(
    "max_slot_wal_keep_size_small",
    "warning",
    "max_slot_wal_keep_size is only {size}",
    "the slot is lost as soon as a hub that is away misses more than that",
    "ALTER SYSTEM SET max_slot_wal_keep_size = '64GB'; SELECT pg_reload_conf(); or as much as its disk can spare",
)
IDLE_SLOT_TIMEOUT = Check(
    "idle_replication_slot_timeout",
    "warning",
    "idle_replication_slot_timeout is {timeout}",
    "the slot is lost when no hub runs for that long",
    "ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf();",
)
NO_SENDER_TIMEOUT = Check(
    "wal_sender_timeout",
    "warning",
    "wal_sender_timeout is 0",
    "after a broken connection the slot stays in use until the operating system notices",
    "ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf();",
)
SHORT_SENDER_TIMEOUT = Check(
    "wal_sender_timeout_small",
    "warning",
    "wal_sender_timeout is only {timeout}",
    "a busy hub or a short pause of the network cuts the stream",
    "ALTER SYSTEM SET wal_sender_timeout = '60s'; SELECT pg_reload_conf();",
)
LITTLE_DECODING_MEMORY = Check(
    "logical_decoding_work_mem",
    "notice",
    "logical_decoding_work_mem is only {size}",
    "nearly every transaction is written to the server's disk before it is sent",
    "ALTER SYSTEM SET logical_decoding_work_mem = '64MB'; SELECT pg_reload_conf();",
)

_OLDEST = 14
_LITTLE_WAL_MEGABYTES = 1024
_SHORT_SENDER_MILLISECONDS = 10_000
_LITTLE_DECODING_KILOBYTES = 4096


@dataclass(frozen=True, slots=True)
class Setting:
    """One of ``pg_settings``: the number in its unit, and as SHOW prints it."""

    number: int
    shown: str


def check_server(connection: psycopg.Connection, where: str, oldest: int = _OLDEST) -> Iterator[Finding]:
    """What makes it useless to look any further."""
    if connection.info.server_version < oldest * 10_000:
        version = connection.info.parameter_status("server_version")
        yield TOO_OLD.found(where, version=version, oldest=oldest)
    elif one(connection, "SELECT pg_is_in_recovery()"):
        yield STANDBY.found(where)


def check_connection(connection: psycopg.Connection, where: str) -> Iterator[Finding]:
    """Whether what leaves this machine is encrypted.

    https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-SSL-VIEW
    """
    host = one(
        connection,
        """SELECT host(coalesce(inet_server_addr(), '127.0.0.1')) FROM pg_stat_ssl s
           LEFT JOIN pg_stat_gssapi g ON g.pid = s.pid
           WHERE s.pid = pg_backend_pid() AND NOT s.ssl AND g.encrypted IS NOT TRUE""",
    )
    if host is not None and not ip_address(host).is_loopback:
        yield NOT_ENCRYPTED.found(where, host=connection.info.host)


def check_settings(connection: psycopg.Connection, where: str) -> Iterator[Finding]:
    """The settings on which a slot's life depends.

    https://www.postgresql.org/docs/current/runtime-config-replication.html
    """
    yield from check_minor_version(connection.info.server_version, where)
    yield from check_connection(connection, where)
    if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
        yield SQL_ASCII.found(where)
    level = one(connection, "SHOW wal_level")
    if level != "logical":
        yield WAL_LEVEL.found(where, level=level)
    yield from _output_plugin(connection, where)
    keep = _setting(connection, "max_slot_wal_keep_size")
    if keep and keep.number == -1:
        yield KEEPS_ALL_WAL.found(where)
    elif keep and keep.number < _LITTLE_WAL_MEGABYTES:
        yield KEEPS_LITTLE_WAL.found(where, size=keep.shown)
    idle = _setting(connection, "idle_replication_slot_timeout")
    if idle and idle.number:
        yield IDLE_SLOT_TIMEOUT.found(where, timeout=idle.shown)
    timeout = _setting(connection, "wal_sender_timeout")
    if timeout and timeout.number == 0:
        yield NO_SENDER_TIMEOUT.found(where)
    elif timeout and timeout.number < _SHORT_SENDER_MILLISECONDS:
        yield SHORT_SENDER_TIMEOUT.found(where, timeout=timeout.shown)
    memory = _setting(connection, "logical_decoding_work_mem")
    if memory and memory.number < _LITTLE_DECODING_KILOBYTES:
        yield LITTLE_DECODING_MEMORY.found(where, size=memory.shown)


def _output_plugin(connection: psycopg.Connection, where: str) -> Iterator[Finding]:
    """A list that minor releases of August 2026 brought; null before, and for a role that may not see it.

    https://www.postgresql.org/docs/release/15.19/
    """
    allowed = one(connection, "SELECT setting FROM pg_settings WHERE name = 'output_plugin_libraries'")
    if allowed is None:
        return
    libraries = [name.strip().strip('"') for name in allowed.split(",") if name.strip()]
    if "pgoutput" not in libraries:
        # A list is set as a list: one literal would be one name.
        literals = one(
            connection,
            "SELECT string_agg(quote_literal(name), ', ') FROM unnest(%s::text[]) name",
            ["pgoutput", *libraries],
        )
        yield OUTPUT_PLUGIN.found(where, libraries=literals)


def _setting(connection: psycopg.Connection, name: str) -> Setting | None:
    """Null where the server is too old to have it."""
    row = connection.execute(
        "SELECT setting::bigint, current_setting(name) FROM pg_settings WHERE name = %s", (name,)
    ).fetchone()
    return Setting(*row) if row else None
