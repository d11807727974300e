"""What all loops say, put side by side: ``status --json`` in docs/reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from catchment.hub.base import DROPPED, Status
from catchment.model.lsn import Lsn

NOT_RUNNING = "not running"
STARTING = "starting"
SILENT = "silent"
"""States that no loop says of itself: nobody runs it; nobody has said anything yet; nothing more was heard of it."""

_SILENCE = timedelta(seconds=20)  # workers report every 2.5 s at least, a loop at rest gives a sign every 10 s
_KEEP = "raise max_slot_wal_keep_size, and see why the source is behind"
_RESTART = "if it is new in catchment.toml, start `catchment run` again; else that run leaves it out with --only"
_LASTING = {"position", "frontier", "tables"}

Summary = dict[str, Any]


def summarise(
    sources: Sequence[str],
    targets: Sequence[str],
    statuses: Sequence[Status],
    running: bool,
    now: datetime,
    shortage: str | None = None,
) -> Summary:
    """Every source, and every target of every source, also those that never ran.

    ``position`` and ``frontier`` are WAL positions as PostgreSQL prints them. ``lag_bytes`` is the source's WAL
    position minus them, ``lag_seconds`` the age of the last transaction there, 0 when nothing is missing; null when
    unknown. Without a running hub, ``running`` false, all that is known is how far each of them had got. The same holds
    for a loop that is silent; ``stale_since`` says when it was last heard of, and is null for all others.
    ``lag_history``: ``lag_seconds`` every 5 s, of the last ten minutes at most, the newest last. ``shortage``: what
    ``hub/space.py`` says.
    """
    last = {(status.source, status.target): _heard(status, now) if running else status for status in statuses}
    unheard = STARTING if running and not statuses else NOT_RUNNING

    def target(name: str, source: str) -> Summary:
        collector, deliverer = last.get((source, None)), last.get((source, name))
        follows = running and collector is not None and collector.state in (DROPPED, STARTING)
        entry = {
            "name": name,
            "source": source,
            **_standing(deliverer, running, collector.state if follows and collector else unheard),
            "frontier": _said(deliverer, "frontier"),
        }
        return entry | _behind(collector, deliverer, running, now)

    def source(name: str) -> Summary:
        delivering = [found for each in targets if (found := last.get((name, each))) is not None]
        return _source(name, last.get((name, None)), delivering, running, unheard, now)

    return {
        "running": running,
        "remedy": shortage,
        "sources": [source(name) for name in sources],
        "targets": [target(name, source) for source in sources for name in targets],
    }


def troubles(summary: Summary) -> Iterator[str]:
    """What is wrong in a running hub and what to do about it, each said once and headed by its state."""
    said = set()
    if summary["remedy"]:
        yield f"full: {summary['remedy']}"
    for source in summary["sources"]:
        for each in source["tables"]:
            if each["remedy"] and each["remedy"] not in said:
                said.add(each["remedy"])
                yield f"{each['state']}: {each['remedy']}"
        if source["slot"] and source["slot"]["wal_status"] == "unreserved":
            yield f"unreserved: source {source['name']}: the server is about to remove WAL that its slot needs; {_KEEP}"
    for loop in (*summary["sources"], *summary["targets"]):
        if loop["remedy"] and loop["remedy"] not in said:
            said.add(loop["remedy"])
            yield f"{loop['state']}: {loop['remedy']}"


def _source(
    name: str, collector: Status | None, delivering: Sequence[Status], running: bool, unheard: str, now: datetime
) -> Summary:
    entry = {"name": name, **_standing(collector, running, unheard), "position": _position(collector, delivering)}
    if running and entry["state"] == NOT_RUNNING:
        entry["remedy"] = f"source {name}: the running hub does not know it; {_RESTART}"
    entry |= _behind(collector, collector, running, now)
    tables = _said(collector, "tables") or []
    if entry["state"] in (NOT_RUNNING, SILENT):
        tables = [{"name": table["name"], "state": entry["state"], "remedy": None} for table in tables]
    elif running:
        stopped = {table: why for each in delivering for table, why in (_said(each, "stopped") or {}).items()}
        tables = [_stopped_in_target(table, stopped) for table in tables]
    return entry | {
        "slot": _said(collector, "slot") if running else None,
        "rows_per_second": _said(collector, "rows_per_second") if running else None,
        "refills": (_said(collector, "refills") or []) if running else [],
        "tables": tables,
    }


def _stopped_in_target(table: Summary, stopped: Mapping[str, str]) -> Summary:
    sentence = stopped.get(table["name"])
    return table if table["remedy"] or sentence is None else {**table, "state": "stopped", "remedy": sentence}


def _position(collector: Status | None, delivering: Sequence[Status]) -> str | None:
    """Up to which the log is complete: a target that streams from it may have said so before the collector has."""
    frontiers = [_said(each, "frontier") for each in delivering if each.state == "streaming"]
    said = [_said(collector, "position"), *frontiers]
    position = max((Lsn.parse(each) for each in said if each is not None), default=None)
    return None if position is None else str(position)


def _heard(status: Status, now: datetime) -> Status:
    """As it was reported; of one that is silent only what lasts."""
    since = _silent_since(status, now)
    if since is None:
        return status
    when = f"{since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if since == status.reported_at:
        what = f"nothing was reported by {status.worker} since {when}"
        remedy = "see what `catchment run` prints: the disk with [hub] state may be full, or the process hangs"
    else:
        of_target = f"target {status.target}, " if status.target else ""
        what = f"{of_target}source {status.source}: its loop has given no sign of life since {when}"
        remedy = "after a minute the hub starts it again"
    lasting = {name: value for name, value in status.detail.items() if name in _LASTING}
    lasting["stale_since"] = since.astimezone(UTC).isoformat()
    return replace(status, state=SILENT, remedy=f"{what}; {remedy}", detail=lasting)


def _silent_since(status: Status, now: datetime) -> datetime | None:
    """When the worker, or else the loop within it, was last heard of, if that is long ago."""
    times = (status.reported_at, status.beat)
    return next((time for time in times if time is not None and now - time > _SILENCE), None)


def _standing(status: Status | None, running: bool, unheard: str) -> Summary:
    if status is None or not running:
        return {"state": unheard, "remedy": None, "stale_since": None}
    return {"state": status.state, "remedy": status.remedy, "stale_since": _said(status, "stale_since")}


def _said(status: Status | None, name: str) -> Any:
    return None if status is None else status.detail.get(name)


def _behind(collector: Status | None, loop: Status | None, running: bool, now: datetime) -> Summary:
    if not running:
        return {"lag_bytes": None, "lag_seconds": None, "lag_history": []}
    return {**lag(collector, loop, now), "lag_history": _said(loop, "lag_history") or []}


def lag(collector: Status | None, loop: Status | None, now: datetime) -> Summary:
    """``lag_bytes`` and ``lag_seconds``: how far a loop is behind what the collector last saw of the source."""
    # A target that has all that came is as far as the stream is, also where nothing of interest came.
    has_all_that_came = _said(loop, "offset") == _said(collector, "offset") is not None
    reached, at = ("passed", "passed_at") if has_all_that_came else ("frontier", "committed_at")
    teller = collector if has_all_that_came else loop
    wal, place = _said(collector, "wal_position"), _said(teller, reached)
    if wal is None or place is None:
        return {"lag_bytes": None, "lag_seconds": None}
    missing = max(0, Lsn.parse(wal) - Lsn.parse(place))
    if missing == 0 or (has_all_that_came and loop is not collector):
        return {"lag_bytes": missing, "lag_seconds": 0.0}
    since = _said(teller, at)
    age = None if since is None else (now.astimezone(UTC) - datetime.fromisoformat(since)).total_seconds()
    return {"lag_bytes": missing, "lag_seconds": None if age is None else round(max(0.0, age), 3)}
