"""Whether a hub is alive, and whether it is ready: nothing to say against it, or one line for each reason why not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from catchment.api.observer import Observer
from catchment.hub.base import DROPPED
from catchment.hub.summary import Summary
from catchment.model.errors import HubError

_PATIENCE = timedelta(seconds=30)  # more than the pause before a worker is started again: who asks may restart us


def not_alive(observer: Observer) -> list[str]:
    """The supervisor looks after its workers, and they report."""
    supervisor = observer.supervisor
    now = datetime.now(UTC)
    if now - supervisor.beat > _PATIENCE:
        return [f"supervisor: has not looked after its workers for {_seconds(now - supervisor.beat)}"]
    try:
        reported = observer.observe().reported
    except HubError as error:
        return [str(error)]
    silent = {
        worker.name: now - reported.get(worker.name, supervisor.started_at)
        for worker in supervisor.workers
        if not worker.finished
    }
    return [f"{name}: has not reported for {_seconds(since)}" for name, since in silent.items() if since > _PATIENCE]


def not_ready(observer: Observer) -> list[str]:
    """Every source is streaming, a refill perhaps beside it, every target past its first load, no table stopped."""
    try:
        observed = observer.observe()
    except HubError as error:
        return [str(error)]
    reasons = [observed.summary["remedy"]] if observed.summary["remedy"] else []
    reasons += _sources(observed.summary)
    for target in observed.summary["targets"]:
        place = f"target {target['name']}, source {target['source']}"
        loop = observed.loops.get((target["source"], target["name"]))
        if target["state"] not in ("streaming", "refilling", DROPPED):
            reasons.append(f"{place}: {_standing(target)}")
        elif loop is not None and not loop.detail.get("loaded"):
            reasons.append(f"{place}: the first load is under way")
    return reasons


def _sources(summary: Summary) -> Iterator[str]:
    for source in summary["sources"]:
        if source["state"] not in ("streaming", "refilling", DROPPED):
            yield f"source {source['name']}: {_standing(source)}"
        for table in source["tables"]:
            if table["state"] == "stopped":
                yield _standing(table)


def _standing(loop: Summary) -> str:
    return f"{loop['state']}: {loop['remedy']}" if loop["remedy"] else str(loop["state"])


def _seconds(since: timedelta) -> str:
    return f"{since.total_seconds():.0f} s"
