"""The replication slot: created when missing, verified on every connect, dropped with the source."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
from psycopg import sql

from catchment.model.errors import SlotBlocked, SlotBusy, SlotLost, start_over
from catchment.model.lsn import Lsn
from catchment.postgres.connection import Translation
from catchment.postgres.replication import ReplicationConnection
from catchment.postgres.unchanged import PULSE

_CREATION_SECONDS = 300.0
_DROP_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class System:
    """What IDENTIFY_SYSTEM says: which cluster this is and where its log stands."""

    identifier: str
    timeline: int
    position: Lsn


@dataclass(frozen=True, slots=True)
class NewSlot:
    """A slot that was just made: where its stream begins, and what its snapshot sees, as ``pg_snapshot`` prints it."""

    consistent_point: Lsn
    snapshot: str


@dataclass(frozen=True, slots=True)
class SlotHealth:
    """What ``status`` shows of a slot. ``retained_bytes``: WAL that the server keeps for it."""

    active: bool
    wal_status: str | None
    retained_bytes: int | None


@dataclass(frozen=True, slots=True)
class Condition:
    """How server and slot are doing. ``slot``: null when it does not exist.

    ``pulse``: as ``unchanged.pulse`` has it; ``position``: as ``wal_position`` has it.
    """

    pulse: str
    position: Lsn
    slot: SlotHealth | None


def identify_system(connection: ReplicationConnection) -> System:
    """Raises the connection's errors."""
    ((identifier, timeline, position, _),) = connection.execute("IDENTIFY_SYSTEM")
    return System(identifier=identifier, timeline=int(timeline), position=Lsn.parse(position))


def slot_exists(connection: psycopg.Connection, slot: str, translation: Translation) -> bool:
    """Whether a slot of that name exists, whosever it is."""
    with translation.around():
        found = connection.execute("SELECT FROM pg_replication_slots WHERE slot_name = %s", (slot,))
        return found.fetchone() is not None


def create_slot(
    replication: ReplicationConnection,
    connection: psycopg.Connection,
    slot: str,
    source: str,
    waiting: Callable[[SlotBlocked], None],
) -> NewSlot:
    """Make the slot and read the snapshot that goes with it.

    Creation waits for every transaction that is open now. ``waiting`` hears every second of one of them, and what it
    raises ends the creation. After five minutes it is given up: an unfinished slot holds WAL back too.
    Raises SlotBlocked, SourceRefused, SourceUnreachable.
    https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-CREATE-REPLICATION-SLOT
    """
    option = "(SNAPSHOT 'export')" if replication.server_version >= 150000 else "EXPORT_SNAPSHOT"
    command = f'CREATE_REPLICATION_SLOT "{slot}" LOGICAL pgoutput {option}'
    deadline = time.monotonic() + _CREATION_SECONDS

    def look() -> None:
        blocked = _blocked(replication, connection, slot, source)
        if time.monotonic() > deadline:
            raise blocked
        waiting(blocked)

    ((_, consistent_point, snapshot_name, _),) = replication.execute(command, look)
    with replication.translation.around(), connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(snapshot_name)))
        ((snapshot,),) = connection.execute("SELECT pg_current_snapshot()::text").fetchall()
    return NewSlot(consistent_point=Lsn.parse(consistent_point), snapshot=snapshot)


def _blocked(replication: ReplicationConnection, connection: psycopg.Connection, slot: str, source: str) -> SlotBlocked:
    with replication.translation.around():
        blocking = connection.execute(
            # A prepared transaction has no process: it blocks as number 0.
            """SELECT b.pid, concat_ws(', ', nullif(a.application_name, ''), a.state,
                                     'open since ' || a.xact_start::timestamp(0) || ' UTC')
               FROM unnest(pg_blocking_pids(%s)) AS b (pid) LEFT JOIN pg_stat_activity a ON a.pid = b.pid""",
            (replication.backend_pid,),
        ).fetchone()
    if blocking is None:
        return SlotBlocked(f"creating slot {slot} waits for open transactions", source=source)
    pid, known = blocking
    who = f"process {pid}" + (f" ({known})" if known else "") if pid else "a prepared transaction"
    return SlotBlocked(f"creating slot {slot} waits for {who}", source=source)


def verify_slot(
    replication: ReplicationConnection,
    connection: psycopg.Connection,
    slot: str,
    source: str,
    system: System,
    written_from: str,
    timeline: int,
    until: Lsn,
) -> None:
    """Make sure that streaming from the slot continues the log exactly where it ends, at ``until``.

    Raises SlotLost otherwise: the server itself would skip what is missing without an error.
    ``written_from`` and ``timeline`` say which system the log was written from.
    https://www.postgresql.org/docs/current/view-pg-replication-slots.html
    """

    def lost(what: str) -> SlotLost:
        return SlotLost(what, source=source, remedy=start_over(source))

    with replication.translation.around():
        row = connection.execute(
            """SELECT s.slot_type, s.plugin, s.database = current_database(), s.temporary, s.confirmed_flush_lsn::text,
                      to_jsonb(s) ->> 'wal_status', to_jsonb(s) ->> 'conflicting', to_jsonb(s) ->> 'invalidation_reason'
               FROM pg_replication_slots s WHERE s.slot_name = %s""",
            (slot,),
        ).fetchone()
    if row is None:
        raise lost(f"slot {slot} no longer exists")
    kind, plugin, here, temporary, confirmed, wal_status, conflicting, reason = row
    if (kind, plugin, here, temporary) != ("logical", "pgoutput", True, False):
        raise lost(f"slot {slot} is not a permanent pgoutput slot of this database")
    if wal_status == "lost" or conflicting == "true" or reason:
        raise lost(f"slot {slot} was invalidated by the server ({reason or wal_status})")
    if Lsn.parse(confirmed) > until:
        raise lost(f"slot {slot} stands at {confirmed}, but the log ends at {until}: it was advanced or made anew")
    if system.identifier != written_from:
        raise lost("the server is another cluster than the one the log was written from")
    if system.position < until:
        raise lost(f"the server's WAL ends at {system.position}, before the end of the log at {until}")
    if system.timeline != timeline:
        switch = _switch_point(replication, timeline, system.timeline)
        if switch is None or switch < until:
            raise lost(f"the server was promoted to timeline {system.timeline} before the end of the log at {until}")


def _switch_point(replication: ReplicationConnection, since: int, timeline: int) -> Lsn | None:
    """Where the given timeline left the older one; null when it does not descend from it."""
    ((_, content),) = replication.execute(f"TIMELINE_HISTORY {timeline}")
    for line in content.splitlines():
        fields = line.split()
        if fields and fields[0] == str(since):
            return Lsn.parse(fields[1])
    return None


def condition(connection: psycopg.Connection, slot: str, translation: Translation) -> Condition:
    """How server and slot are doing, in one question: an idle source is asked little else."""
    with translation.around():
        ((beats, position, segment_bytes, *health),) = connection.execute(
            f"""SELECT {PULSE}, pg_current_wal_insert_lsn()::text, pg_size_bytes(current_setting('wal_segment_size')),
                       s.active, s.wal_status, pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint
                FROM (SELECT 1) one LEFT JOIN pg_replication_slots s ON s.slot_name = %s""",
            (slot,),
        ).fetchall()
    position = Lsn.parse(position).before_page_header(segment_bytes)
    return Condition(beats, position, None if health[0] is None else SlotHealth(*health))


def drop_slot(connection: psycopg.Connection, slot: str, translation: Translation) -> bool:
    """Drop the slot; false when there is none. Raises SlotBusy when somebody keeps streaming from it."""
    deadline = time.monotonic() + _DROP_SECONDS
    while slot_exists(connection, slot, translation):
        try:
            connection.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
        except psycopg.errors.ObjectInUse as error:
            if time.monotonic() > deadline:
                raise SlotBusy(str(error.diag.message_primary), source=translation.source) from None
            time.sleep(0.2)
        except psycopg.Error as error:
            raise translation(error) from None
        else:
            return True
    return False
