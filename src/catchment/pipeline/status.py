"""What a loop says of itself, and how it is kept going."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from catchment.hub.base import DROPPED, Status
from catchment.model.errors import CatchmentError, SourceUnreachable, TableRefused, TargetUnreachable
from catchment.pipeline.counters import Counters

_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 15.0
_OPERATOR_PAUSE_SECONDS = 20.0

STATES = ("starting", "streaming", "refilling", "retrying", "stopped")
"""Of a loop whose source was not removed."""

UNREACHED_SECONDS = 60.0
"""How long a run that ends by itself waits for a server that has not answered once."""

LAG_SECONDS = 5.0
"""How often a loop's lag is noted for its history."""
_LAG_SAMPLES = 120

logger = structlog.get_logger()


class LoopStatus:
    """The state of one loop, written by its thread and read by the worker's reports.

    States: ``starting``, ``streaming``, ``refilling`` (of a target: with all tables), ``retrying`` (it mends itself),
    ``stopped`` (it needs a person), ``dropped`` (its source was removed). ``news``: whether more than the beat and the
    history of the lag is another since it was last reported.
    """

    def __init__(self, source: str, target: str | None = None) -> None:
        self.source = source
        self.target = target
        self.state = "starting"
        self.remedy: str | None = None
        self._beat: datetime | None = datetime.now(UTC)
        self._detail: dict[str, Any] = {}
        self._counters = Counters()
        self._lags: deque[float | None] = deque(maxlen=_LAG_SAMPLES)
        self._lock = threading.Lock()
        self._told: Status | None = None
        self.news = True
        self._began = time.monotonic()
        self._reached = self._unreachable = False

    @property
    def given_up(self) -> bool:
        """Whether its server has not answered once since the loop began, ``UNREACHED_SECONDS`` ago or longer."""
        return self._unreachable and time.monotonic() - self._began >= UNREACHED_SECONDS

    def well(self, state: str, trouble: str | None = None, **detail: Any) -> None:
        """The loop goes round, part of its work perhaps in ``trouble``. ``detail`` replaces what had its names."""
        with self._lock:
            self._beat = datetime.now(UTC)
            self._reached, self._unreachable = True, False
            self._show(state, trouble, detail)

    def note(self, **detail: Any) -> None:
        """Something else to be shown."""
        with self._lock:
            self._show(self.state, self.remedy, detail)

    def dropped(self) -> None:
        """The source was removed while the hub runs."""
        with self._changing():
            self.state, self.remedy, self._beat = DROPPED, None, None
            self._detail.clear()

    def failed(self, error: CatchmentError) -> None:
        """The loop ended with this error, and sleeps before it is run again."""
        with self._changing():
            self.state, self.remedy = "retrying" if error.retry else "stopped", str(error)
            self._beat = None
            self._counters.failed(type(error).__name__)
            self._unreachable = not self._reached and isinstance(error, SourceUnreachable | TargetUnreachable)

    def restarted(self) -> None:
        """The loop is run again after an error."""
        with self._changing():
            self._counters.restarted()

    def moved(self, batches: int, changes: int) -> None:
        """So much was appended to the log, or applied to the target."""
        with self._changing():
            self._counters.moved(batches, changes)

    def applied(self, committed: Iterable[datetime]) -> None:
        """What was committed at these times is visible in the target as of now."""
        with self._changing():
            self._counters.applied(committed)

    def behind(self, seconds: float | None) -> None:
        """The lag as it is now, null when unknown: ten minutes of it are kept. To be called every ``LAG_SECONDS``."""
        with self._lock:
            before = list(self._lags)
            self._lags.append(seconds)
            if list(self._lags) != before:  # after ten minutes at rest it is the same again and again
                self._told = None

    def beat(self) -> None:
        """Still alive."""
        self._beat = datetime.now(UTC)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """A server is at work for us and may take long; TCP's keepalive notices when it is gone."""
        self._beat = None
        try:
            yield
        finally:
            self._beat = datetime.now(UTC)

    def report(self, worker: str) -> Status:
        """The state as others see it, the same object for as long as it is the same.

        ``detail`` also has the counters and the history of the lag.
        """
        with self._lock:
            if self._told is None:
                detail = {**self._detail, **self._counters.told(), "lag_history": list(self._lags)}
                self._told = Status(self.source, self.target, worker, self.state, self.remedy, self._beat, detail)
            elif self._told.beat != self._beat:
                self._told = replace(self._told, beat=self._beat)
            self.news = False
            return self._told

    def _show(self, state: str, remedy: str | None, detail: Mapping[str, Any]) -> None:
        shown = {**self._detail, **detail}
        if (state, remedy, shown) != (self.state, self.remedy, self._detail):
            self.state, self.remedy, self._detail = state, remedy, shown
            self._told, self.news = None, True

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock:
            self._told, self.news = None, True
            yield


class Stopping:
    """The wish that loops end, and a way to sleep that it interrupts."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._wakes: list[Callable[[], None]] = []

    def __bool__(self) -> bool:
        """Whether loops are to end."""
        return self._event.is_set()

    def now(self) -> None:
        """Have all loops end after what they are doing."""
        self._event.set()
        for wake in self._wakes:
            wake()

    def wakes(self, wake: Callable[[], None]) -> None:
        """Something that sleeps in a way of its own is woken by this."""
        self._wakes.append(wake)

    def over(self) -> None:
        """Loops may begin again."""
        self._event.clear()

    def sleep(self, seconds: float) -> None:
        """Sleep so long, less when loops are to end."""
        self._event.wait(seconds)


def keep_going(
    loop: Callable[[], None], status: LoopStatus, stopping: Stopping, pause: Callable[[float], None]
) -> None:
    """Run a loop until it is to end, again after every error: soon when trying again helps, else now and then.

    What only a person can mend is looked at again every 20 s, so that nothing has to be restarted once it is mended.
    """
    soon = _FIRST_PAUSE_SECONDS
    while not stopping:
        began = time.monotonic()
        error = _attempt(loop, status)
        if error is not None:
            if isinstance(error, TableRefused):
                soon = _FIRST_PAUSE_SECONDS  # that table has stopped by now, and holds up no other
            else:
                went_well = time.monotonic() - began > _LONGEST_PAUSE_SECONDS
                soon = _FIRST_PAUSE_SECONDS if went_well else min(2 * soon, _LONGEST_PAUSE_SECONDS)
                _attempt(partial(pause, soon if error.retry else _OPERATOR_PAUSE_SECONDS), status)
            if not stopping:
                status.restarted()


def _attempt(action: Callable[[], None], status: LoopStatus) -> CatchmentError | None:
    """Do it; returns the error that ended it, having told it."""
    try:
        action()
    except CatchmentError as error:
        error.source = error.source or status.source
        error.target = error.target or status.target
        failure = error
    except Exception as error:  # noqa: BLE001  # a defect of ours must not take other sources' loops with it
        failure = defect(error, status.source, status.target)
    else:
        return None
    status.failed(failure)
    logger.warning("loop failed", source=status.source, target=status.target, error=str(failure))
    return failure


def defect(error: Exception, source: str, target: str | None = None) -> CatchmentError:
    """Where an unexpected error arose; its text is left out, since it may quote rows."""
    frames = traceback.extract_tb(error.__traceback__)
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
    return CatchmentError(
        f"unexpected {type(error).__name__} at {where}",
        source=source,
        target=target,
        remedy="this is a defect of Catchment: please report it; it is tried again",
    )
