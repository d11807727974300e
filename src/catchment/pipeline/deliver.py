"""Deliver: read the log after the target's own frontier, apply, repeat."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from catchment.hub.base import Hub
from catchment.log.base import Log, Span
from catchment.model.batch import Batch, RefillFinished, RefillStarted, SchemaChanged
from catchment.model.errors import CatchmentError, LogTrimmed
from catchment.model.frontier import Frontier
from catchment.pipeline.lacks import Lacks
from catchment.pipeline.rest import rest
from catchment.pipeline.session import REFILL
from catchment.pipeline.state import KEPT, MENDED, TARGET, Refill, decode
from catchment.pipeline.status import LoopStatus, Stopping
from catchment.targets.base import Pace, Target

_ROUND_SECONDS = 10.0
_ASKED_SECONDS = 0.1
_PACE_SECONDS = 0.5
_SHARE_OF_UPKEEP = 0.5
_DURABLE_SECONDS = 0.2


class Deliverer:
    """Hosts the deliver loop of one source and one target.

    ``position``: the offset that the target has taken in, in log ``identity``; null until a place to begin is found.
    ``durable``: up to where no crash of the target can take it back.
    ``whole_at``: the last position at which the target was looked at and lacked nothing that a refill would bring.
    ``patient``: whether it waits until a target of some pace wants to be served.
    """

    def __init__(self, source: str, target: Target, log: Log, hub: Hub, stopping: Stopping) -> None:
        self.source = source
        self.target = target
        self.status = LoopStatus(source, target.name)
        self.position: int | None = None
        self.durable: int | None = None
        self.identity: UUID | None = None
        self.whole_at: int | None = None
        self.patient = True
        self._log = log
        self._hub = hub
        self._stopping = stopping
        self._loading: set[str] = set()
        self._trouble: str | None = None
        self._durable_since = 0.0
        stopping.wakes(partial(log.wake, source))

    def run(self) -> None:
        """Find where to begin, then deliver until it is time to stop.

        Begin anew when the log has become another one, or was trimmed past this target, which fell too far behind.
        """
        while not self._stopping:
            self.position = self.durable = self.whole_at = None
            with self.status.waiting():
                begun = self._begin()
            if begun is not None:
                self.identity, self.position = begun
                try:
                    self._deliver(self.identity, self.position)
                except LogTrimmed:
                    self._trouble = None

    def _deliver(self, identity: UUID, position: int) -> None:
        """The loop: as much as is there, at least one whole transaction, in one commit of the target."""
        known = Refill.of(self._log.state(self.source))
        refills = Refills(self.target.name, known)
        self._loading = {refill.id for refill in known if is_loading(refill, self.target.name, position)}
        lacks = Lacks(self.source, self.target, self._log, self._hub)
        untended = True
        while not self._stopping:
            with self.status.waiting():
                whole_at = lacks.looked_after(position)
            # To try again may take long, and until it has gone well nothing has been mended.
            trouble = self._trouble or next(iter(lacks.stopped.values()), None)
            state = "refilling" if self._loading else "streaming"
            self.status.well(state, trouble, offset=position, loaded=not self._loading, stopped=lacks.stopped)
            self.whole_at = whole_at  # a table that has stopped is told before this can be taken for the end
            seconds = rest(min(_PACE_SECONDS if untended else _ROUND_SECONDS, lacks.seconds_to_look))
            if self.durable != position:
                seconds = min(seconds, _DURABLE_SECONDS)
            span = self._log.wait(self.source, position, seconds, self.target.pace.bytes)
            if span.log != identity:
                return
            if span.last <= position:
                if self.durable != position:
                    self._apply(position, (), durable=True)
                untended = self._tend(0)
            elif self.patient and (seconds := self._due_in(span)) > 0:
                untended = self._tend(0)
                self._stopping.sleep(min(seconds, _PACE_SECONDS))  # or until it has become much
            else:
                began = time.monotonic()
                batches = refills.addressed(self._log.read(self.source, position, span.last))
                # While more and more comes, only some commits wait for the target's disk: what it loses in a crash is
                # in the log. Who waits until all is caught up wants to know that it is there to stay.
                durable = not self.patient or began - self._durable_since >= _DURABLE_SECONDS
                passed = self._apply(span.last, batches, durable)
                position = span.last
                if passed.reshaped:
                    lacks.look_again()
                untended = self._tend(_SHARE_OF_UPKEEP * (time.monotonic() - began))
        if self.target.pace.delay > 0:
            self._flush(refills, identity, position)

    def _tend(self, seconds: float) -> bool:
        """A piece for each round that has nothing else to do; under load a share of the time."""
        with self.status.waiting():
            return self.target.tend(self.source, seconds)

    def _flush(self, refills: Refills, identity: UUID, position: int) -> None:
        """Before the end: what waited for its time."""
        span = self._log.wait(self.source, position, 0, self.target.pace.bytes)
        if span.log == identity and span.last > position:
            self._apply(span.last, refills.addressed(self._log.read(self.source, position, span.last)), durable=True)

    def _due_in(self, span: Span) -> float:
        """A span that was cut because of its bytes is not followed by nothing."""
        seconds = due_in(span, self.target.pace)
        return 0.0 if seconds > 0 and self._log.wait(self.source, span.last, 0).last > span.last else seconds

    def _apply(self, through: int, batches: Iterable[tuple[Frontier, Batch]], durable: bool) -> Passed:
        passed = Passed()
        try:
            with self.status.waiting():
                self.target.apply(self.source, passed.watching(batches), durable)
        except CatchmentError as error:
            error.source, error.target = error.source or self.source, error.target or self.target.name
            self._trouble = str(error)
            raise
        self.position = through
        if durable:
            self.durable, self._durable_since = through, time.monotonic()
        self._trouble = None
        self._loading -= passed.refills
        self.status.applied(passed.committed)
        self.status.moved(passed.batches, passed.changes)
        if (last := passed.last) is not None:
            self.status.note(frontier=str(last.lsn), committed_at=last.committed_at.isoformat())
        return passed

    def _begin(self) -> tuple[UUID, int] | None:
        """The log and the offset to go on behind; null when it is time to stop.

        Where the target stands, if the log still has what follows; else where the last refill of all tables for it
        begins, if that is still kept; else such a refill is asked for and waited for.
        """
        asked = False
        frontier = self.target.frontier(self.source)
        while not self._stopping:
            span = self._log.wait(self.source, 0, 0)
            if frontier and frontier.log == span.log and span.first - 1 <= frontier.offset <= self._end():
                standing = {"frontier": str(frontier.lsn), "committed_at": frontier.committed_at.isoformat()}
                self.status.well("streaming", self._trouble, **standing)
                return span.log, frontier.offset
            state = self._log.state(self.source)
            birth = state.get(f"{TARGET}{self.target.name}")
            if birth is not None and (begins := int(decode(birth)["offset"])) >= span.first:
                return span.log, begins - 1
            if birth is not None and not asked:
                # It was filled once, but what followed has been trimmed or is not in the target any more.
                arguments = {"targets": [self.target.name], "tables": None, "after": self._end()}
                self._hub.request(REFILL, self.source, arguments, by=f"target {self.target.name}")
                asked = True
            self.status.well("refilling", self._trouble, loaded=False)
            self._stopping.sleep(_ASKED_SECONDS)
        return None

    def _end(self) -> int:
        return self._log.wait(self.source, 0, 0, most_bytes=2**62).last


def due_in(span: Span, pace: Pace) -> float:
    """In how many seconds a target of this pace wants what is there, if no more comes; 0 when it wants it now."""
    if pace.delay == 0 or span.bytes >= pace.bytes or span.oldest is None:
        return 0.0
    return max(0.0, pace.delay - (datetime.now(UTC) - span.oldest).total_seconds())


def is_loading(refill: Refill, target: str, position: int) -> bool:
    """Whether a target that has got so far is in the midst of this refill, and it is one of all tables."""
    begun = refill.full and target in refill.targets and refill.started is not None and refill.started <= position + 1
    return begun and (refill.finished is None or position < refill.finished)


@dataclass(slots=True)
class Passed:
    """What one ``apply`` was given. ``committed``: when each of its batches was committed; ``refills``: finished ones.

    ``reshaped``: whether a table of the target may have got another shape. A batch counts by its last transaction. What
    the source did not commit, idle positions and refills, has no time.
    """

    last: Frontier | None = None
    batches: int = 0
    changes: int = 0
    committed: list[datetime] = field(default_factory=list)
    refills: set[str] = field(default_factory=set)
    reshaped: bool = False

    def watching(self, batches: Iterable[tuple[Frontier, Batch]]) -> Iterator[tuple[Frontier, Batch]]:
        """The same batches, noted as they go by."""
        for frontier, batch in batches:
            self.last = frontier
            self.batches += 1
            self.changes += batch.changes
            self.reshaped |= any(isinstance(event, RefillFinished | SchemaChanged) for event in batch.events)
            self.refills |= {event.refill for event in batch.events if isinstance(event, RefillFinished)}
            # A refill is told between two transactions: it does not move the position.
            if batch.ends_transaction and batch.until > batch.after and (batch.rows or batch.events or batch.part):
                self.committed.append(batch.committed_at)
            yield frontier, batch


class Refills:
    """Which refills are for other targets: their rows and events are hidden from this one."""

    def __init__(self, target: str, known: Iterable[Refill]) -> None:
        self._target = target
        self._foreign = {KEPT, *(refill.id for refill in known if target not in refill.targets)}

    def addressed(self, batches: Iterable[tuple[Frontier, Batch]]) -> Iterator[tuple[Frontier, Batch]]:
        """The batches as this target may see them; none is left out, so that offsets stay without a gap."""
        for frontier, batch in batches:
            for event in batch.events:
                if isinstance(event, RefillStarted) and self._target not in event.targets:
                    self._foreign.add(event.refill)
            events = tuple(
                event
                for event in batch.events
                if not (isinstance(event, RefillStarted | RefillFinished) and event.refill in self._foreign)
            )
            rows = tuple(
                replace(rows, refill=None) if rows.refill == MENDED else rows
                for rows in batch.rows
                if rows.refill not in self._foreign
            )
            yield frontier, replace(batch, events=events, rows=rows)
