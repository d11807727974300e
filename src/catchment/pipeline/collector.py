"""A collector: the collect loop of one source with its connections, its slot and its log."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import datetime

import psycopg

from catchment.log.base import LogWriter
from catchment.model.batch import Batch
from catchment.model.errors import CatchmentError, SlotBlocked, SlotLost, SourceRefused
from catchment.model.lsn import Lsn
from catchment.pipeline.collect import collect
from catchment.pipeline.session import REFILL, Session, Surroundings
from catchment.pipeline.spool import Spool
from catchment.pipeline.state import SOURCE, Origin, needed
from catchment.pipeline.status import Stopping
from catchment.postgres.ahead import ReadAhead, reader
from catchment.postgres.bell import Bell
from catchment.postgres.catalog import published_tables, verify_publication
from catchment.postgres.connection import Translation, connect, of_source
from catchment.postgres.replication import ReplicationConnection
from catchment.postgres.slot import create_slot, drop_slot, identify_system, slot_exists, verify_slot
from catchment.postgres.snapshot import server_time, wal_position
from catchment.postgres.source import Source
from catchment.postgres.stream import SlotStream

_LOOK_SECONDS = 0.5


class Collector:
    """Hosts the collect loop of one source. ``run`` raises what ends it, ``pause`` sleeps until it is run again."""

    def __init__(self, around: Surroundings, stopping: Stopping) -> None:
        self._around = around
        self._source = around.source
        self._stopping = stopping
        self._goal: Lsn | None = None
        self._lost = False
        self._session: Session | None = None
        self._bell = Bell()
        stopping.wakes(self._bell.ring)

    def wake(self) -> None:
        """Somebody asked for something: have the loop look."""
        self._bell.ring()

    @property
    def reached(self) -> int | None:
        """The offset that the log has got to; null while there is no connection."""
        session = self._session
        return session.reached if session else None

    @property
    def settled(self) -> int | None:
        """The offset from which on the position that the source had at the start is passed and no backfill under way.

        Null before that, and while a backfill is under way.
        """
        session = self._session
        return session.settled if session else None

    @property
    def keep(self) -> int | None:
        """The offset behind which a backfill needs the log, also one that waits for a connection."""
        session = self._session
        return session.backfills.keep if session else needed(self._around.log.state(self._source.name))

    def run(self) -> None:
        """Open the log, connect, and collect until it is time to stop."""
        self._lost = False
        try:
            self._run(of_source(self._source.name))
        except SlotLost:
            self._lost = True
            raise

    def _run(self, translation: Translation) -> None:
        with ExitStack() as open_here:
            with self._around.status.waiting():
                writer = open_here.enter_context(closing(self._around.log.open_writer(self._source.name)))
                if writer.tail.frontier.lsn:
                    self._around.status.note(position=str(writer.tail.frontier.lsn))
                connection = open_here.enter_context(connect(self._source.dsn, translation))
                replication = open_here.enter_context(ReplicationConnection(self._source.dsn, translation))
                with translation.around():
                    # A catalog query may meet somebody's exclusive lock; the stream must not wait behind it for long.
                    connection.execute("SET lock_timeout = '2s'")
                origin = _prepare(self._source, writer, replication, connection, translation, self._wait_for_slot)
                self._goal = self._goal or wal_position(connection, translation)
                start = writer.tail.frontier.lsn
                source, bell = self._source, self._bell
                slot_stream = SlotStream(replication, source.slot, source.publication, start, bell)
                # Before the connection is closed, which another thread may be reading from.
                stream = open_here.enter_context(closing(ReadAhead(slot_stream, reader())))
                session = Session(self._around, writer, stream, connection, translation, origin, self._goal, bell)
            self._session = open_here.enter_context(closing(session))
            open_here.callback(self._forget_session)
            spool = open_here.enter_context(closing(Spool(self._around.held / "transactions")))
            collect(stream, spool, session.cutter, session.append, session, self._stopping)

    def _wait_for_slot(self, blocked: SlotBlocked) -> None:
        self._around.status.well("starting", trouble=str(blocked))
        if self._stopping:
            raise blocked

    def _forget_session(self) -> None:
        self._session = None

    def pause(self, seconds: float) -> None:
        """Sleep; when the slot is lost, a request to read everything again starts the source over at once."""
        deadline = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < deadline:
            if self._lost and self._asked_to_start_over():
                return
            self._stopping.sleep(_LOOK_SECONDS)

    def _asked_to_start_over(self) -> bool:
        hub, name = self._around.hub, self._source.name
        request = hub.claim(self._around.worker, [name], [REFILL])
        if request is None:
            return False
        if request.arguments.get("tables") is not None:
            hub.finish(request.id, f"refused: the slot is lost; run `catchment backfill {name}` without tables")
            return False
        try:
            # The slot goes first: interrupted in between, it is still the slot that is lost, and this is done again.
            translation = of_source(name)
            with connect(self._source.dsn, translation) as connection:
                drop_slot(connection, self._source.slot, translation)
            self._around.log.remove(name)
        except CatchmentError:
            hub.release(name)
            raise
        self._lost = False
        self._goal = None
        hub.release(name)  # whoever asked waits for all tables to be read, which the new session answers
        return True


def _prepare(
    source: Source,
    writer: LogWriter,
    replication: ReplicationConnection,
    connection: psycopg.Connection,
    translation: Translation,
    waiting: Callable[[SlotBlocked], None],
) -> Origin:
    """Have a slot from which the stream continues exactly where the log ends. Raises SlotLost when there is none."""
    system = identify_system(replication)
    origin = Origin.of(writer.tail.state)
    if origin is not None and origin.snapshot is not None:
        verify_publication(connection, source.publication, translation, origin.publication)
        until = writer.tail.frontier.lsn
        verify_slot(replication, connection, source.slot, source.name, system, origin.system, origin.timeline, until)
        if system.timeline != origin.timeline:
            origin = replace(origin, timeline=system.timeline)
            _note(source, writer, until, writer.tail.frontier.committed_at, origin)
        return origin
    publication = verify_publication(connection, source.publication, translation, None)
    if slot_exists(connection, source.slot, translation):
        if origin is None:
            raise SourceRefused(
                f"slot {source.slot} exists already, and the log of this hub knows nothing of it",
                source=source.name,
                remedy=f"if no other hub uses it, run `catchment source drop {source.name}`; else name another slot",
            )
        drop_slot(connection, source.slot, translation)  # ours: its creation was interrupted
    tables = tuple(published_tables(connection, source.publication, translation))
    origin = Origin(system.identifier, system.timeline, publication, None, tables)
    _note(source, writer, writer.tail.frontier.lsn, server_time(connection, translation), origin)
    slot = create_slot(replication, connection, source.slot, source.name, waiting)
    origin = replace(origin, snapshot=slot.snapshot)
    _note(source, writer, slot.consistent_point, server_time(connection, translation), origin)
    return origin


def _note(source: Source, writer: LogWriter, until: Lsn, at: datetime, origin: Origin) -> None:
    batch = Batch(source.name, writer.tail.frontier.lsn, until, 0, True, at)
    writer.append(batch, {SOURCE: origin.encode()})
