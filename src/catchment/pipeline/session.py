"""What a collector does beside its stream, from one connection to the next."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import psycopg
import pyarrow as pa

from catchment.changes.snapshot import Snapshot
from catchment.changes.waiting import created_in_part
from catchment.hub.base import Hub, Request
from catchment.log.base import Log, LogWriter, State
from catchment.model.batch import Batch
from catchment.model.errors import SourceRefused, TableLocked
from catchment.model.lsn import Lsn
from catchment.pipeline.cut import Cutter
from catchment.pipeline.refill import Backfills
from catchment.pipeline.shapes import Published, Shapes
from catchment.pipeline.state import SEQUENCE, Origin, decode
from catchment.pipeline.status import LoopStatus
from catchment.pipeline.streamed import Streamed
from catchment.postgres.bell import Bell
from catchment.postgres.catalog import published_tables, verify_publication
from catchment.postgres.connection import Translation
from catchment.postgres.slot import condition
from catchment.postgres.snapshot import current_snapshot, nudge, wal_position
from catchment.postgres.source import Source
from catchment.postgres.stream import Stream
from catchment.postgres.unchanged import catalog_digest
from catchment.wire.twin import Decoder

REFILL = "refill"
"""The kind of request that asks for a backfill.

Its arguments: ``tables`` (names; null for all), ``targets`` (names; null for all), ``after`` (of a target that has no
place to begin: a refill that begins behind this offset will do), ``keys`` (of the rows of one table to which it is
limited: a list of texts for each column of the key).
"""

_CHORES_SECONDS = 10.0
_LOOK_SECONDS = 0.5
_REPORT_SECONDS = 1.0
_NUDGE_SECONDS = 1.0
_BUSY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a session is given: the same for every session of a source."""

    source: Source
    targets: tuple[str, ...]
    log: Log
    hub: Hub
    worker: str
    held: Path
    status: LoopStatus


class Session:
    """Appends, reports, claims requests, looks at the catalog now and then, and moves backfills on."""

    def __init__(
        self,
        around: Surroundings,
        writer: LogWriter,
        stream: Stream,
        connection: psycopg.Connection,
        translation: Translation,
        origin: Origin,
        goal: Lsn,
        bell: Bell,
    ) -> None:
        self._around = around
        self._source = around.source
        self._writer = writer
        self._stream = stream
        self._connection = connection
        self._translation = translation
        self._publication = origin.publication
        self._goal = goal
        self._bell = bell
        tail = writer.tail
        sequence = int(decode(tail.state[SEQUENCE])["last"]) if SEQUENCE in tail.state else 0
        decoder, streamed = Decoder(tail.frontier.lsn, sequence), Streamed(tail.state)
        self._streamed = streamed
        self._shapes = Shapes(
            self._source.name, tail.state, self._published, lambda: current_snapshot(connection, translation)
        )
        self.cutter = Cutter(self._source.name, tail.frontier.lsn, decoder, self._shapes, streamed)
        self.backfills = Backfills(
            around.source,
            around.targets,
            around.log,
            writer,
            decoder,
            self._shapes,
            streamed,
            around.held,
            append=self._append_between,
            answer=around.hub.finish,
            busy=self._is_busy,
            wake=bell.ring,
        )
        self._doubt: str | None = ""  # why it is not known what the catalog shows by now
        self._compared: tuple[str, int] | None = None
        self._digest = ""
        self._catalog: Published = {}
        self._wal_position = goal
        self._nudged_to: Lsn | None = None
        self.settled: int | None = None
        self._changes = self._changes_reported = self._rate = 0
        self._tables: list[dict[str, str | None]] | None = None
        self._changed = time.monotonic()
        self._began_at = wal_position(connection, translation)
        self._passed, self._passed_at = tail.frontier.lsn, tail.frontier.committed_at
        self._did_chores = self._looked = self._nudged = self._reported = float("-inf")
        if SEQUENCE not in tail.state:  # nothing was told yet, not even that a backfill is to come
            self._shapes.expect(self._published(), origin.tables)
        self.backfills.begin_targets()
        # Whoever had claimed a request has forgotten it, unless it is written down by now.
        around.hub.release(self._source.name)
        bell.ring()

    @property
    def reached(self) -> int:
        """The offset that the log has got to."""
        return self._writer.tail.frontier.offset

    @property
    def at_rest(self) -> bool:
        """All that was under way has ended, and has been told."""
        told = self._changes == self._changes_reported and self._rate == 0 and self._tables is self._shapes.summary()
        return told and self.settled is not None

    def _published(self, only: int | None = None) -> Published:
        name, translation = self._source.publication, self._translation
        published = published_tables(self._connection, name, translation, only)
        # Asked afterwards: a publication that was not there has shared nothing, which must not retire its tables.
        verify_publication(self._connection, name, translation, self._publication)
        return published

    def append(self, batch: Batch, state: State) -> Lsn:
        """Make the batch durable; returns how far the log reaches now, in whole transactions."""
        for told in batch.rows:
            if told.refill is None and (keys := created_in_part(told.table, told.data)):
                state = {**state, **self.backfills.mend(told.table, keys)}
        self.beat()  # a large transaction is many batches
        self._writer.append(batch, state)
        self._changes += batch.changes
        self._around.status.moved(1, batch.changes)
        if batch.until > batch.after and batch.changes:
            self._changed = time.monotonic()
        return self._writer.tail.frontier.lsn

    def _append_between(self, batch: Batch, state: State) -> None:
        """Append what does not come from the stream; that may take long, and the server must hear from us meanwhile."""
        self._stream.acknowledge(self.append(batch, state))

    def _is_busy(self) -> bool:
        """Whether others write, or may: a snapshot must not be held for long then."""
        heard = max(self._passed, self._writer.tail.frontier.lsn)
        return heard < self._began_at or time.monotonic() - self._changed < _BUSY_SECONDS

    def passed(self, position: Lsn, at: datetime) -> None:
        """The server has nothing more from before this position."""
        self._passed, self._passed_at = position, at

    def beat(self) -> None:
        """The loop goes round."""
        self._around.status.beat()

    @property
    def awaited(self) -> Lsn | None:
        """The position that somebody needs the log to reach.

        A backfill, a change of shape that was seen, or somebody who waits for all to be caught up.
        """
        wanted = (self.backfills.awaited, self._shapes.awaited, self._goal)
        positions = [position for position in wanted if position is not None]
        return min((position for position in positions if position > self._writer.tail.frontier.lsn), default=None)

    def between_transactions(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS and self._bell.has_rung():
            self._looked = now
            self._claim()
        if now - self._did_chores >= _CHORES_SECONDS:
            self._did_chores = now
            # While neither the server nor the log has anything new, another look would find the same.
            standing = (self._do_chores(), self.reached)
            if standing != self._compared and self._compare() is not None:
                self._compared = standing
        elif (seen := self._shapes.awaited) is not None and seen <= self._writer.tail.frontier.lsn:
            self._compare()
        self.backfills.advance()
        self.backfills.remember()
        awaited = self.awaited
        if awaited is not None and (awaited != self._nudged_to or now - self._nudged >= _NUDGE_SECONDS):
            self._nudged, self._nudged_to = now, awaited
            nudge(self._connection, self._translation)
        frontier = self._writer.tail.frontier
        if (
            self._doubt is not None
            or self._shapes.awaited is not None
            or not self.backfills.idle
            or frontier.lsn < self._goal
        ):
            self.settled = None
        elif self.settled is None:
            self._report(now)  # a table that has stopped is told before this can be taken for the end
            self.settled = frontier.offset
        if now - self._reported >= (_CHORES_SECONDS if self.at_rest else _REPORT_SECONDS):
            self._report(now)

    def _claim(self) -> None:
        """Take up what was asked for."""
        while (request := self._around.hub.claim(self._around.worker, [self._source.name], [REFILL])) is not None:
            self._digest = ""  # with the planner's estimates as they are by now
            published = self._compare()
            if published is None or self._shapes.awaited is not None:
                self._around.hub.release(self._source.name)
                return  # a table is locked, or is just getting another name: look again next time
            self._take(request, published)

    def _take(self, request: Request, published: Published) -> None:
        """Turn a request into a backfill, or answer it."""
        done = self.backfills.has_answered(request.id)
        names, targets, after = (request.arguments.get(name) for name in ("tables", "targets", "after"))
        targets = targets or self._around.targets
        if done is not None:
            if done:
                self._around.hub.finish(request.id, "done")
            return
        if after is not None and all(self.backfills.begins_behind(target, after) for target in targets):
            self._around.hub.finish(request.id, "already under way")
            return
        if names is None and self.backfills.join(targets, request.id):
            return
        by_name = {str(table.table): oid for oid, table in published.items()}
        if unknown := [name for name in names or () if name not in by_name]:
            sentence = f"publication {self._source.publication} of source {self._source.name} has no table {unknown[0]}"
            self._around.hub.finish(request.id, f"refused: {sentence}; name tables as schema.table")
            return
        tables = None if names is None else [by_name[name] for name in names]
        if (keys := request.arguments.get("keys")) and tables:
            self.backfills.want_mended(tables[0], [pa.array(column, pa.string()) for column in keys], request.id)
        else:
            self.backfills.want(targets, tables, request.id)

    def _do_chores(self) -> str:
        """Look at the source: what a snapshot sees, how the slot does; returns its pulse."""
        found = condition(self._connection, self._source.slot, self._translation)
        self._streamed.forget_seen(Snapshot.parse(found.pulse.partition(" ")[0]))
        self._around.status.note(slot=asdict(found.slot) if found.slot else None)
        self._wal_position = found.position
        return found.pulse

    def _compare(self) -> Published | None:
        """Compare the tables with the catalog, and tell what the stream does not; null while a table is locked."""
        since = wal_position(self._connection, self._translation)
        try:
            digest = catalog_digest(self._connection, self._translation)
            if digest != self._digest:
                self._catalog, self._digest = self._published(), digest
        except TableLocked as locked:
            self._doubt = str(locked)
            return None
        self._doubt = None
        until = wal_position(self._connection, self._translation)
        frontier = self._writer.tail.frontier
        for step in self._shapes.notice(self._catalog, since, until, frontier.lsn):
            told = self._shapes.take(step)
            batch = Batch(self._source.name, frontier.lsn, frontier.lsn, 0, True, frontier.committed_at, told)
            self._append_between(batch, self._shapes.changes())
        return self._catalog

    def _nothing_shared(self) -> str | None:
        if any(not known.retired for known in self._shapes.known.values()):
            return None
        name = self._source.publication
        remedy = f"have its owner run ALTER PUBLICATION {name} ADD TABLE …;"
        return str(SourceRefused(f"publication {name} shares no table", source=self._source.name, remedy=remedy))

    def _report(self, now: float) -> None:
        frontier = self._writer.tail.frontier
        if not self.at_rest:  # else it was asked just now, with the chores
            self._wal_position = wal_position(self._connection, self._translation)
        self._tables = self._shapes.summary()
        self._rate = round((self._changes - self._changes_reported) / (now - self._reported))
        self._around.status.well(
            "streaming" if self.backfills.idle else "refilling",
            trouble=self.backfills.trouble or self._shapes.trouble() or self._doubt or self._nothing_shared(),
            position=str(frontier.lsn),
            passed=str(max(frontier.lsn, self._passed)),
            passed_at=max(frontier.committed_at, self._passed_at).isoformat(),
            wal_position=str(self._wal_position),
            offset=frontier.offset,
            committed_at=frontier.committed_at.isoformat(),
            rows_per_second=self._rate,
            refills=self.backfills.progress(),
            tables=self._tables,
        )
        self._reported, self._changes_reported = now, self._changes

    def close(self) -> None:
        """Stop what runs beside the stream."""
        self.backfills.close()
