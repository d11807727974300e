"""``ScriptedStream``: the fake that ships with the Stream contract."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from catchment.model.lsn import Lsn
from catchment.postgres.stream import Received


class ScriptedStream:
    """Hands out what it was given, one piece a call, then calls ``at_end`` each time there is nothing left.

    ``acknowledged`` holds every position that was acknowledged, ``asked`` how often a keepalive was asked for.
    """

    def __init__(self, script: Iterable[Received], at_end: Callable[[], None]) -> None:
        self._script = deque(script)
        self._at_end = at_end
        self.acknowledged: list[Lsn] = []
        self.asked = 0

    def receive(self, timeout: float) -> Received:
        """The next piece, at once."""
        if self._script:
            return self._script.popleft()
        self._at_end()
        return Received([])

    def acknowledge(self, until: Lsn, ask: bool = False) -> None:
        """Note it."""
        self.asked += ask
        self.acknowledged.append(until)

    def close(self) -> None:
        """Nothing to let go of."""
