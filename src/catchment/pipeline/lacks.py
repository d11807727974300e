"""What a target lacks although no refill brings it: found now and then, and asked for."""

from __future__ import annotations

import time

import structlog

from catchment.hub.base import Hub
from catchment.log.base import Log
from catchment.pipeline.session import REFILL
from catchment.pipeline.state import KnownTable
from catchment.targets.base import Target

logger = structlog.get_logger()

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 10.0


class Lacks:
    """Has tables that take no changes any more read again, where that is all it takes.

    ``stopped``: those for which a person has to do something first, each with its sentence.
    """

    def __init__(self, source: str, target: Target, log: Log, hub: Hub) -> None:
        self.stopped: dict[str, str] = {}
        self._source = source
        self._target = target
        self._log = log
        self._hub = hub
        self._look_at = 0.0
        self._pause = _FIRST_PAUSE_SECONDS
        self._whole_at: int | None = None
        self._request: int | None = None
        self._until = 0

    @property
    def seconds_to_look(self) -> float:
        """In how many seconds it is time to look."""
        return max(0.0, self._look_at - time.monotonic())

    def look_again(self) -> None:
        """A table may have stopped just now: look soon."""
        self._look_at, self._pause = 0.0, _FIRST_PAUSE_SECONDS

    def looked_after(self, position: int) -> int | None:
        """Look, if it is time, at the target, which has got to ``position``.

        Returns the last position at which nothing was found that waits for a refill; null while one is under way.
        """
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
            if self._request is not None and self._hub.find(self._request).outcome is not None:
                # What it has brought is in the log up to here; looking before the target has it would ask once more.
                self._request, self._until = None, self._log.wait(self._source, 0, 0, most_bytes=2**62).last
            if self._request is None and position >= self._until:
                self._look()
            self._whole_at = position if self._request is None and position >= self._until else None
        return self._whole_at

    def _look(self) -> None:
        found = self._target.out_of_date(self._source)
        if found:  # what the source shares no more is what people make of it
            known = KnownTable.of(self._log.state(self._source)).values()
            shared = {str(each.table) for each in known if not each.retired}
            found = {table: sentence for table, sentence in found.items() if table in shared}
        stopped = {table: sentence for table, sentence in found.items() if sentence}
        for table in sorted(stopped.keys() - self.stopped.keys()):
            logger.warning("table stopped", source=self._source, target=self._target.name, error=stopped[table])
        self.stopped = stopped
        if missing := sorted(found.keys() - stopped.keys()):
            arguments = {"targets": [self._target.name], "tables": missing, "after": None}
            self._request = self._hub.request(REFILL, self._source, arguments, f"target {self._target.name}")
