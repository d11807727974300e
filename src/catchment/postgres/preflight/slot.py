"""Preflight of the replication slot: is it there, is it ours, can it be made, does it continue the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from catchment.model.errors import CatchmentError, SlotLost, start_over
from catchment.model.lsn import Lsn
from catchment.postgres.catalog import verify_publication
from catchment.postgres.connection import Translation
from catchment.postgres.finding import Check, Finding
from catchment.postgres.preflight.asking import current_role, one, quoted
from catchment.postgres.preflight.transactions import check_transactions
from catchment.postgres.replication import ReplicationConnection
from catchment.postgres.slot import identify_system, verify_slot
from catchment.postgres.source import Source

LOST = Check(
    "slot_lost",
    "error",
    "the stream cannot continue the log: {what}",
    "to go on would lose changes without a word",
    start_over("{source}"),
)
NOT_OURS = Check(
    "slot_foreign",
    "error",
    "slot {slot} is not a permanent pgoutput slot of this database",
    "it is somebody else's",
    "give the source another slot in catchment.toml",
)
UNKNOWN = Check(
    "slot_unknown",
    "error",
    "slot {slot} exists already, and the log of this hub knows nothing of it",
    "it may be another hub's, whose changes this one would take away",
    "if no other hub uses it, run `catchment source drop {source}`; else name another slot in catchment.toml",
)
BUSY = Check(
    "slot_busy",
    "error",
    "slot {slot} is in use by process {pid}{who}, and no hub runs here",
    "only one process can stream from a slot",
    "if no earlier run is just ending, another hub has it, such as one that was moved: give each its own slot",
)
BLOCKED = Check(
    "slot_blocked",
    "error",
    "slot {slot} is being created, and waits for transactions that were open before",
    "nothing is collected before it exists",
    "end the transactions that are named below",
)
AT_RISK = Check(
    "slot_at_risk",
    "warning",
    "slot {slot} needs WAL beyond max_slot_wal_keep_size",
    "it is lost at the server's next checkpoint",
    "ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf(); then let the hub catch up",
)
NO_SLOT_FREE = Check(
    "max_replication_slots",
    "error",
    "all {most} replication slots are in use",
    "each source needs one",
    "ALTER SYSTEM SET max_replication_slots = {more}; then restart the server",
)
NO_SENDER_FREE = Check(
    "max_wal_senders",
    "error",
    "all {most} walsenders are in use",
    "each source needs one to stream from",
    "ALTER SYSTEM SET max_wal_senders = {more}; then restart the server",
)
NO_REPLICATION = Check(
    "replication",
    "error",
    "privilege REPLICATION is missing",
    "only such a role may stream",
    "ALTER ROLE {role} REPLICATION;",
)
NO_REPLICATION_CONNECTION = Check(
    "replication_connection",
    "error",
    "no replication connection: {what}",
    "changes come over such a one only",
    "let the dsn name the server itself, not a pooler before it, and let pg_hba.conf admit the role to the database",
)
NOT_IN_FAILOVER = Check(
    "failover",
    "notice",
    "slot {slot} is not kept on standbys",
    "when a standby takes over, the source starts over and all its tables are read again",
    "with no hub running, on a connection with replication=database: ALTER_REPLICATION_SLOT {name} (FAILOVER true);",
)
NO_FAILOVER = Check(
    "failover_version",
    "notice",
    "there are standbys, and slots are not kept on them before PostgreSQL 17",
    "when a standby takes over, the source starts over and all its tables are read again",
    "upgrade to PostgreSQL 17 or newer",
)


@dataclass(frozen=True, slots=True)
class Logged:
    """What the log of this hub says of a source: the system that it is written from, and where it ends.

    ``publication``: its oid. ``until``: null while the slot is being created.
    """

    system: str
    timeline: int
    publication: int
    until: Lsn | None


@dataclass(frozen=True, slots=True)
class Hub:
    """What is known here. ``running``: a hub runs on this state directory. ``logged``: null without a log."""

    running: bool = False
    logged: Logged | None = None


@dataclass(frozen=True, slots=True)
class _Slot:
    active_pid: int | None
    ours: bool
    wal_status: str | None
    reason: str | None
    created: bool
    failover: bool | None


# to_jsonb: columns that only newer servers have.
_SLOT = """
SELECT s.active_pid, s.slot_type = 'logical' AND s.plugin = 'pgoutput' AND s.database = current_database()
        AND NOT s.temporary AS ours,
    s.wal_status, coalesce(to_jsonb(s) ->> 'invalidation_reason',
        CASE WHEN to_jsonb(s) ->> 'conflicting' = 'true' THEN 'conflict' END) AS reason,
    s.confirmed_flush_lsn IS NOT NULL AS created, (to_jsonb(s) ->> 'failover')::bool AS failover
FROM pg_replication_slots s WHERE s.slot_name = %s
"""

_WHO = """
SELECT concat_ws(', ', nullif(application_name, ''), usename::text, host(client_addr))
FROM pg_stat_activity WHERE pid = %s
"""


def check_slot(
    connection: psycopg.Connection, source: Source, where: str, translation: Translation, hub: Hub
) -> Iterator[Finding]:
    """https://www.postgresql.org/docs/current/view-pg-replication-slots.html"""
    with connection.cursor(row_factory=class_row(_Slot)) as cursor:
        slot = cursor.execute(_SLOT, (source.slot,)).fetchone()
    if hub.logged is not None and hub.logged.until is not None:
        yield from _publication(connection, source, where, translation, hub.logged.publication)
    if slot is None or not slot.created:
        yield from _to_be_made(connection, source, where, slot, hub)
    else:
        yield from _there(connection, source, where, slot, hub)
    if slot is None or slot.active_pid is None:
        yield from _walsender(connection, source, where, translation, hub.logged if slot and slot.ours else None)
    yield from _failover(connection, source, where, slot)


def _publication(
    connection: psycopg.Connection, source: Source, where: str, translation: Translation, known: int
) -> Iterator[Finding]:
    try:
        verify_publication(connection, source.publication, translation, known)
    except SlotLost as error:
        yield LOST.found(where, what=error.what, source=source.name)
    except CatchmentError:
        return  # there is none: said elsewhere


def _to_be_made(
    connection: psycopg.Connection, source: Source, where: str, slot: _Slot | None, hub: Hub
) -> Iterator[Finding]:
    if slot is None and hub.logged is not None and hub.logged.until is not None:
        what = f"slot {source.slot} no longer exists"
        yield LOST.found(where, what=what, source=source.name)
    waited_for = list(check_transactions(connection, where))
    if slot is not None and waited_for:
        yield BLOCKED.found(where, slot=source.slot)
    yield from waited_for
    if slot is None:
        most, used = free_slots(connection)
        if used >= most:
            yield NO_SLOT_FREE.found(where, most=most, more=used + 1)


def _there(connection: psycopg.Connection, source: Source, where: str, slot: _Slot, hub: Hub) -> Iterator[Finding]:
    if not slot.ours:
        yield NOT_OURS.found(where, slot=source.slot)
    elif slot.wal_status == "lost" or slot.reason:
        what = f"slot {source.slot} was invalidated by the server ({slot.reason or slot.wal_status})"
        yield LOST.found(where, what=what, source=source.name)
    elif slot.active_pid is not None and not hub.running:
        who = one(connection, _WHO, slot.active_pid)
        yield BUSY.found(where, slot=source.slot, pid=slot.active_pid, who=f" ({who})" if who else "")
    elif hub.logged is None:
        yield UNKNOWN.found(where, slot=source.slot, source=source.name)
    elif slot.wal_status == "unreserved":
        yield AT_RISK.found(where, slot=source.slot)


def _walsender(
    connection: psycopg.Connection, source: Source, where: str, translation: Translation, logged: Logged | None
) -> Iterator[Finding]:
    """Connects as the stream will: privileges that a provider grants in its own way and poolers show only so."""
    try:
        replication = ReplicationConnection(source.dsn, translation)
    except CatchmentError as error:
        most, used = free_senders(connection)
        allowed = one(connection, "SELECT rolsuper OR rolreplication FROM pg_roles WHERE rolname = current_user")
        if used >= most:
            yield NO_SENDER_FREE.found(where, most=most, more=used + 1)
        elif not allowed:
            yield NO_REPLICATION.found(where, role=current_role(connection))
        else:
            yield NO_REPLICATION_CONNECTION.found(where, what=error.what)
        return
    with closing(replication):
        if logged is None or logged.until is None:
            return
        system = identify_system(replication)
        try:
            verify_slot(
                replication, connection, source.slot, source.name, system, logged.system, logged.timeline, logged.until
            )
        except SlotLost as error:
            if "was invalidated" not in error.what:
                yield LOST.found(where, what=error.what, source=source.name)


def _failover(connection: psycopg.Connection, source: Source, where: str, slot: _Slot | None) -> Iterator[Finding]:
    """https://www.postgresql.org/docs/current/logical-replication-failover.html"""
    if not one(connection, "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_type = 'physical')"):
        return
    if connection.info.server_version < 170_000:
        yield NO_FAILOVER.found(where)
    elif slot is not None and slot.ours and not slot.failover:
        yield NOT_IN_FAILOVER.found(where, slot=source.slot, name=quoted(source.slot))


def free_slots(connection: psycopg.Connection) -> tuple[int, int]:
    """How many replication slots there can be, and how many there are."""
    row = connection.execute(
        "SELECT current_setting('max_replication_slots')::int, (SELECT count(*) FROM pg_replication_slots)"
    ).fetchone()
    return row or (0, 0)


def free_senders(connection: psycopg.Connection) -> tuple[int, int]:
    """How many walsenders there can be, and how many there are."""
    row = connection.execute(
        "SELECT current_setting('max_wal_senders')::int, (SELECT count(*) FROM pg_stat_replication)"
    ).fetchone()
    return row or (0, 0)
