"""The fake that ships with the contract: a target in memory, for tests of what drives targets."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from catchment.model.batch import Batch
from catchment.model.errors import CatchmentError, TargetRefused
from catchment.model.frontier import Frontier
from catchment.targets.base import Pace

Recording = dict[str, list[tuple[Frontier, Batch]]]
"""By source, the batches taken in. The last one's frontier is the target's own: both change together."""

_PACE = Pace(delay=0.0, bytes=16 * 2**20)


class RecordingTarget:
    """Keeps the batches that it is given, by the rules that every target follows.

    ``recording`` outlives the target: another one made with it stands where this one stood. ``seconds`` is how long
    each ``apply`` takes more than it has to.
    """

    def __init__(
        self,
        name: str = "recording",
        pace: Pace = _PACE,
        scope: Literal["source", "hub"] = "source",
        recording: Recording | None = None,
    ) -> None:
        self.name = name
        self.pace = pace
        self.scope = scope
        self.recording: Recording = {} if recording is None else recording
        self.seconds = 0.0
        self.closed = False
        self.tended: list[float] = []
        self.durable: list[bool] = []
        self.missing: dict[str, dict[str, str | None]] = {}
        self._failures: deque[CatchmentError] = deque()

    def fail_next(self, *errors: CatchmentError) -> None:
        """Let as many coming calls of ``apply`` raise these, one each, when they would commit: nothing is kept."""
        self._failures.extend(errors)

    def batches(self, source: str) -> Sequence[Batch]:
        """What was taken in of this source, in order."""
        return [batch for _, batch in self.recording.get(source, ())]

    def frontier(self, source: str) -> Frontier | None:
        """The frontier of the last batch taken in. Raises TargetRefused when closed, as all methods do."""
        self._check_open()
        taken = self.recording.get(source)
        return taken[-1][0] if taken else None

    def apply(self, source: str, batches: Iterable[tuple[Frontier, Batch]], durable: bool = True) -> None:
        """Take in all batches or none, and note whether they had to be durable."""
        reached = self.frontier(source)
        taken: list[tuple[Frontier, Batch]] = []
        for frontier, batch in batches:
            if reached is None or not reached.covers(frontier):
                taken.append((frontier, batch))
                reached = frontier
        time.sleep(self.seconds)
        if self._failures:
            raise self._failures.popleft()
        self.durable.append(durable)
        if taken:
            self.recording.setdefault(source, []).extend(taken)

    def tend(self, source: str, seconds: float) -> bool:
        """Note how long it might take."""
        self.tended.append(seconds)
        return False

    def out_of_date(self, source: str) -> Mapping[str, str | None]:
        """As ``missing`` says."""
        self._check_open()
        return self.missing.get(source, {})

    def forget(self, source: str) -> None:
        """Drop what was taken in of this source."""
        self._check_open()
        self.recording.pop(source, None)

    def close(self) -> None:
        """From now on every call is refused."""
        self.closed = True

    def _check_open(self) -> None:
        if self.closed:
            raise TargetRefused(f"target {self.name} is closed")
