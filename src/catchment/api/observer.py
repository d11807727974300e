"""A running hub, as its supervisor's process sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from catchment.hub.base import Hub, Status
from catchment.hub.space import shortage
from catchment.hub.summary import Summary, summarise
from catchment.pipeline.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Observed:
    """What all loops had said at one moment. ``loops`` is by source and target, null for the collect loop."""

    at: datetime
    loops: Mapping[tuple[str, str | None], Status]
    reported: Mapping[str, datetime]
    summary: Summary


@dataclass(frozen=True, slots=True)
class Observer:
    """Looks at the hub's state whenever it is asked.

    ``sources``, ``targets``: those that this run is about; ``state``: the directory with all that it keeps.
    """

    hub: Hub
    supervisor: Supervisor
    sources: Sequence[str]
    targets: Sequence[str]
    state: Path

    def observe(self) -> Observed:
        """What was reported since this run began. Raises HubError."""
        statuses = self.hub.statuses()
        now = datetime.now(UTC)
        reported: dict[str, datetime] = {}
        recent: list[Status] = []
        for status in statuses:
            if status.reported_at is not None and status.reported_at >= self.supervisor.started_at:
                reported[status.worker] = status.reported_at
                recent.append(status)
        loops = {(status.source, status.target): status for status in recent}
        summary = summarise(self.sources, self.targets, recent, True, now, shortage(self.state))
        return Observed(now, loops, reported, summary)
