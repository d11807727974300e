"""The supervisor: keeps the worker processes going. Imports nothing heavy, so that it can be always there."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from catchment.hub.base import Hub
from catchment.model.errors import HubError
from catchment.pipeline.rest import rest
from catchment.pipeline.status import LoopStatus

_LOOK_SECONDS = 5.0
_SILENCE_SECONDS = 60.0
_GRACE_SECONDS = 15.0
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 30.0
_ENDED_BY_ITSELF = {0, 1, 2, 3}

MISCONFIGURED = 2
"""How a worker ends, having said why, that finds a mistake in catchment.toml."""

logger = structlog.get_logger()


@dataclass(slots=True)
class WorkerProcess:
    """One worker's process. Its standard input is a pipe whose other end only we hold: it ends when we do."""

    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = _FIRST_PAUSE_SECONDS
    start_at: float = 0.0
    exit_status: int | None = None
    restarts: int = 0
    finished: bool = False

    def start(self) -> None:
        """Start it, or start it again; it is for later if that cannot be now."""
        self.started = time.monotonic()
        try:
            # A process group of its own: Ctrl-C in the terminal is for us, the worker ends when its pipe does.
            self.process = subprocess.Popen(list(self.command), stdin=subprocess.PIPE, process_group=0)
        except OSError as error:  # no memory is left, or the program is just being replaced
            self.exit_status = None
            self._start_later()
            logger.error("worker cannot be started, trying again", worker=self.name, error=error.strerror)

    def ended(self) -> bool:
        """Whether it ran and has ended since the last look; notes how."""
        if self.process is None or (status := self.process.poll()) is None:
            return False
        self.exit_status = status
        self._close_pipe()
        self.process = None
        if time.monotonic() - self.started > _SILENCE_SECONDS:
            self.pause = _FIRST_PAUSE_SECONDS
        self._start_later()
        return True

    def ask_to_end(self) -> None:
        """Close the pipe."""
        if self.process is not None:
            self._close_pipe()

    def _start_later(self) -> None:
        self.start_at = time.monotonic() + self.pause
        self.pause = min(2 * self.pause, _LONGEST_PAUSE_SECONDS)

    def _close_pipe(self) -> None:
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()


class Supervisor:
    """Starts a process for each share of the sources, and starts again what ends or falls silent.

    ``beat``: when it last looked after its workers. ``told_to_end``: by Ctrl-C or SIGTERM.
    """

    def __init__(self, commands: Mapping[str, Sequence[str]], hub: Hub) -> None:
        self.workers = [WorkerProcess(name, command) for name, command in commands.items()]
        self.started_at = self.beat = datetime.now(UTC)
        self._hub = hub
        self.told_to_end = False

    def run(self, until_caught_up: bool = False) -> int:
        """Returns the highest exit status of the workers that ended by themselves, 0 when told to end.

        A worker that cannot begin with its configuration ends all: ``MISCONFIGURED``.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._be_told)
        looked = time.monotonic()
        while not self.told_to_end and not all(worker.finished for worker in self.workers):
            self.beat = datetime.now(UTC)
            for worker in self.workers:
                ended = worker.ended()
                if ended and worker.exit_status == MISCONFIGURED and not worker.restarts:
                    self._end()
                    return MISCONFIGURED
                if ended and until_caught_up and worker.exit_status in _ENDED_BY_ITSELF:
                    worker.finished = True
                elif worker.process is None and not worker.finished and time.monotonic() >= worker.start_at:
                    if worker.exit_status is not None:
                        worker.restarts += 1
                        logger.warning("worker ended, starting it again", worker=worker.name, status=worker.exit_status)
                    worker.start()
            if time.monotonic() - looked >= _LOOK_SECONDS:
                looked = time.monotonic()
                with suppress(HubError):
                    self._end_silent_ones()
            time.sleep(rest(0))
        if self.told_to_end:
            logger.info("ending, as soon as the loops have finished what they are doing")
        self._end()
        return max((worker.exit_status or 0 for worker in self.workers if worker.finished), default=0)

    def _be_told(self, *_: object) -> None:
        # No event: the signal can come while the loop waits for it, holding its lock.
        self.told_to_end = True

    def _end_silent_ones(self) -> None:
        """A loop that has not been heard of for a minute costs its worker: everything in it can be started again."""
        now = datetime.now(UTC)
        silent = {
            status.worker: status
            for status in self._hub.statuses()
            if status.beat is not None and (now - status.beat).total_seconds() > _SILENCE_SECONDS
        }
        for worker in self.workers:
            if worker.name in silent and worker.process and time.monotonic() - worker.started > _SILENCE_SECONDS:
                loop = silent[worker.name]
                logger.error("loop fell silent, ending its worker", source=loop.source, target=loop.target)
                worker.process.kill()

    def _end(self) -> None:
        for worker in self.workers:
            worker.ask_to_end()
        deadline = time.monotonic() + _GRACE_SECONDS
        for worker in self.workers:
            if worker.process is not None:
                try:
                    worker.process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    worker.process.kill()
                    worker.process.wait()


def announce(hub: Hub, hosted: Mapping[str, Sequence[str]]) -> None:
    """Let nothing of an earlier run be taken for this one's: what each worker is to host is starting."""
    for name in {status.worker for status in hub.statuses()}:
        hub.forget_worker(name)
    for name, sources in hosted.items():
        hub.report(name, [LoopStatus(source).report(name) for source in sources])


def shares(sources: Sequence[str], cores: int) -> dict[str, list[str]]:
    """Which worker hosts which sources: as many workers as cores, at most one for each source."""
    count = min(cores, len(sources))
    return {f"worker-{number + 1}": list(sources[number::count]) for number in range(count)}
