"""A worker: one process with the loops of its share of the sources."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

import structlog

from catchment.hub.base import DROPPED, Hub, Request, Status
from catchment.hub.summary import lag
from catchment.log.base import Log
from catchment.model.errors import CatchmentError
from catchment.pipeline.collector import Collector
from catchment.pipeline.deliver import Deliverer
from catchment.pipeline.drop import drop_source
from catchment.pipeline.rest import rest
from catchment.pipeline.status import LAG_SECONDS, LoopStatus, Stopping, keep_going
from catchment.postgres.source import Source

DROP = "drop"
"""The kind of request that removes a source's slot and log. Its argument ``purge``: also what targets built from it."""

CAUGHT_UP, CAUGHT_UP_IN_TROUBLE = 0, 3
"""How a worker ends that was to run until it is caught up."""

_REPORT_SECONDS, _REST_SECONDS = 1.0, 2.5  # where there are news, and where there are none
_TRIM_SECONDS = 10.0
_GRACE_SECONDS = 10.0
_WAKE_SECONDS = 0.1
_CONNECTING_SECONDS = 1.0
_FILES = 65_536

logger = structlog.get_logger()


@dataclass
class Hosted:
    """One source with its loops. ``stopping`` ends them together."""

    source: Source
    status: LoopStatus
    collector: Collector
    deliverers: Sequence[Deliverer]
    stopping: Stopping
    threads: list[threading.Thread] = field(default_factory=list)
    lag_noted: float = float("-inf")
    trimmed: object = None
    trim_trouble: str | None = None

    def start(self) -> None:
        """Run each loop in a thread of its own."""
        loops: list[tuple[str, Callable[[], None], LoopStatus, Callable[[float], None]]] = [
            ("collect", self.collector.run, self.status, self.collector.pause)
        ]
        loops += [
            (f"deliver {deliverer.target.name}", deliverer.run, deliverer.status, self.stopping.sleep)
            for deliverer in self.deliverers
        ]
        for name, run, status, pause in loops:
            thread = threading.Thread(
                target=keep_going,
                args=(run, status, self.stopping, pause),
                name=f"{name} {self.source.name}",
                daemon=True,
            )
            thread.start()
            self.threads.append(thread)

    @cached_property
    def statuses(self) -> Sequence[LoopStatus]:
        """All loops' statuses."""
        return (self.status, *(deliverer.status for deliverer in self.deliverers))

    def report(self, worker: str) -> list[Status]:
        """What all loops say; every few seconds also how far behind they are is noted."""
        told = [status.report(worker) for status in self.statuses]
        if self.status.state == DROPPED:
            return told[:1]
        if time.monotonic() - self.lag_noted >= LAG_SECONDS:
            self.lag_noted = time.monotonic()
            now = datetime.now(UTC)
            for status, said in zip(self.statuses, told, strict=True):
                status.behind(lag(told[0], said, now)["lag_seconds"])
        return told

    @property
    def in_trouble(self) -> bool:
        """Whether something waits for a person: a loop, a table or a backfill."""
        return any(status.remedy is not None for status in self.statuses)

    def caught_up(self, log: Log) -> bool:
        """Whether every target has what the source had at the start, backfills included.

        What waits for a person is not waited for: a stopped target or table, and of a stopped source all that is not in
        the log. Nor is a server for longer than a minute that has not answered once.
        """
        if self.status.state == DROPPED:
            return True
        cut_off = _is_given_up(self.status)
        goal = log.wait(self.source.name, 0, 0).last if cut_off else self.collector.settled
        delivering = [each for each in self.deliverers if not _is_given_up(each.status)]
        positions = [each.position if cut_off else each.whole_at for each in delivering]
        return goal is not None and all(position >= goal if position is not None else cut_off for position in positions)

    def trim(self, log: Log, most_bytes: int) -> None:
        """Forget what all targets have; beyond ``most_bytes`` also what the slowest lacks, which is refilled later."""
        reached, standing = self.collector.reached, [(each.identity, each.durable) for each in self.deliverers]
        if (reached, standing) == self.trimmed:
            return  # nothing was appended, and nobody has gone on
        span = log.wait(self.source.name, 0, 0)
        behind = [each.durable if each.identity == span.log else None for each in self.deliverers]
        through = max(min((position or 0 for position in behind), default=0), log.excess(self.source.name, most_bytes))
        keep = self.collector.keep
        all_is_done = reached is not None and (keep is None or keep >= through)
        first = log.trim(self.source.name, through if keep is None else min(through, keep))
        self.trimmed = (reached, standing) if all_is_done else None
        self.status.note(log={"bytes": span.bytes, "first": first})

    def end(self) -> None:
        """Have the loops end, and wait for it."""
        self.stopping.now()
        for thread in self.threads:
            self.wait_for(thread)
        self.threads.clear()

    def wait_for(self, thread: threading.Thread, seconds: float = float("inf")) -> None:
        """Wait so long for a loop that was told to end; told once only, it may have been just about to sleep."""
        deadline = time.monotonic() + seconds
        while thread.is_alive() and (left := deadline - time.monotonic()) > 0:
            self.stopping.now()
            thread.join(min(left, _WAKE_SECONDS))

    def drop(self, log: Log, purge: bool) -> str:
        """End the loops, then remove slot and log, and what was built from them; returns what was done.

        When that fails the loops that ran go on: a slot that nobody reads from would hold WAL back.
        """
        ran = bool(self.threads)
        self.end()
        try:
            done = drop_source(self.source, log, [deliverer.target for deliverer in self.deliverers] if purge else [])
        except CatchmentError:
            if ran:
                self.stopping.over()
                self.start()
            raise
        self.status.dropped()
        return done


def _allow_open_files() -> None:
    """A source has a dozen of them, and many systems begin with a thousand for a process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def _is_given_up(status: LoopStatus) -> bool:
    return status.state == "stopped" or status.given_up


class Worker:
    """Hosts sources until its supervisor is gone or says so, or until all of them are caught up."""

    def __init__(
        self, name: str, hosted: Sequence[Hosted], log: Log, hub: Hub, most_bytes: int, close: Callable[[], None]
    ) -> None:
        self._name = name
        self._hosted = list(hosted)
        self._named = {each.source.name: each for each in hosted}
        self._statuses = [status for each in hosted for status in each.statuses]
        self._log = log
        self._hub = hub
        self._most_bytes = most_bytes
        self._close = close
        self._stopping = Stopping()

    def run(self, until_caught_up: bool) -> int:
        """Returns the exit status. Ends when standard input does: the supervisor holds its other end."""
        # A loop that a server has answered must not wait 5 ms for the interpreter, which another one is using.
        sys.setswitchinterval(0.0005)
        _allow_open_files()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # In a thread: the signal can come while this one waits for the same event, holding its lock.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=self._stopping.now).start())
        threading.Thread(target=self._watch_supervisor, daemon=True).start()
        dropped = {status.source for status in self._hub.statuses() if status.state == DROPPED}
        for deliverer in (each for hosted in self._hosted for each in hosted.deliverers):
            deliverer.patient = not until_caught_up
        for hosted in self._hosted:
            if hosted.source.name in dropped:  # before this worker was started again
                hosted.status.dropped()
            else:
                hosted.start()
        status = CAUGHT_UP
        trimmed = time.monotonic()
        reported = float("-inf")
        trouble: str | None = None
        while not self._stopping:
            try:
                if time.monotonic() - reported >= (_REPORT_SECONDS if self._has_news() else _REST_SECONDS):
                    reported = time.monotonic()
                    self._report()
                self._answer()
                if time.monotonic() - trimmed >= _TRIM_SECONDS:
                    trimmed = time.monotonic()
                    self._trim()
                trouble = None
            except CatchmentError as error:  # a full disk, for instance: the loops find out by themselves
                if trouble != (trouble := str(error)):
                    logger.warning("housekeeping failed", error=trouble)
            if until_caught_up and all(hosted.caught_up(self._log) for hosted in self._hosted):
                status = CAUGHT_UP_IN_TROUBLE if any(hosted.in_trouble for hosted in self._hosted) else CAUGHT_UP
                break
            self._stopping.sleep(rest(0))
        self._end()
        return status

    def _watch_supervisor(self) -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        self._stopping.now()

    def _has_news(self) -> bool:
        return any(status.news for status in self._statuses)

    def _report(self) -> None:
        self._hub.report(self._name, [said for hosted in self._hosted for said in hosted.report(self._name)])

    def _answer(self) -> None:
        """Take up what was asked for, or have the loop that can do so."""
        for source, kind in self._hub.unclaimed():
            if source not in self._named:
                continue
            if kind != DROP:
                self._named[source].collector.wake()
            elif (request := self._hub.claim(self._name, [source], [DROP])) is not None:
                threading.Thread(target=self._drop, args=(self._named[source], request), daemon=True).start()

    def _drop(self, hosted: Hosted, request: Request) -> None:
        try:
            outcome = hosted.drop(self._log, bool(request.arguments.get("purge")))
            self._report()  # a worker that is started again begins with no source that was dropped
        except CatchmentError as error:
            outcome = f"refused: {error}"
        self._hub.finish(request.id, outcome)

    def _trim(self) -> None:
        for hosted in self._hosted:
            trouble: str | None = None
            try:
                hosted.trim(self._log, self._most_bytes)
            except CatchmentError as error:  # what is wrong with one source's log must not let the others' grow
                trouble = str(error)
                if trouble != hosted.trim_trouble:
                    logger.warning("log not trimmed", source=hosted.source.name, error=trouble)
            hosted.trim_trouble = trouble

    def _end(self) -> None:
        """Let the loops finish what they are doing; what hangs is ended with the process, which loses nothing."""
        for hosted in self._hosted:
            hosted.stopping.now()
        began = time.monotonic()
        for hosted in self._hosted:
            for status, thread in zip(hosted.statuses, hosted.threads, strict=False):
                # One that fails is connecting, or sleeps: it has nothing under way.
                grace = _CONNECTING_SECONDS if status.state in ("retrying", "stopped") else _GRACE_SECONDS
                hosted.wait_for(thread, began + grace - time.monotonic())
        with suppress(CatchmentError):
            self._report()
        self._close()
