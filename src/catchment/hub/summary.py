"""What all loops say, put side by side: ``status --json`` in docs/reference."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from catchment.hub.base import Status
from catchment.model.lsn import Lsn

NOT_RUNNING = "not running"

Summary = dict[str, Any]


def summarise(
    sources: Sequence[str], targets: Sequence[str], statuses: Sequence[Status], running: bool, now: datetime
) -> Summary:
    """Every source, and every target of every source, also those that never ran.

    ``position`` and ``frontier`` are WAL positions as PostgreSQL prints them. ``lag_bytes`` is the source's WAL
    position minus them, ``lag_seconds`` the age of the last transaction there, 0 when nothing is missing; null when
    unknown. Without a running hub, ``running`` false, all that is known is how far each of them had got.
    """
    last = {(status.source, status.target): status for status in statuses}

    def target(name: str, source: str) -> Summary:
        collector, deliverer = last.get((source, None)), last.get((source, name))
        entry = {
            "name": name,
            "source": source,
            **_standing(deliverer, running),
            "frontier": _said(deliverer, "frontier"),
        }
        return entry | _lag(collector, deliverer, "frontier", running, now)

    return {
        "sources": [_source(name, last.get((name, None)), running, now) for name in sources],
        "targets": [target(name, source) for source in sources for name in targets],
    }


def _source(name: str, collector: Status | None, running: bool, now: datetime) -> Summary:
    entry = {"name": name, **_standing(collector, running), "position": _said(collector, "position")}
    entry |= _lag(collector, collector, "position", running, now)
    tables = _said(collector, "tables") or []
    if not running:
        tables = [{"name": table["name"], "state": NOT_RUNNING, "remedy": None} for table in tables]
    return entry | {
        "slot": _said(collector, "slot") if running else None,
        "rows_per_second": _said(collector, "rows_per_second") if running else None,
        "refills": (_said(collector, "refills") or []) if running else [],
        "tables": tables,
    }


def _standing(status: Status | None, running: bool) -> Summary:
    if status is None or not running:
        return {"state": NOT_RUNNING, "remedy": None}
    return {"state": status.state, "remedy": status.remedy}


def _said(status: Status | None, name: str) -> Any:
    return None if status is None else status.detail.get(name)


def _lag(collector: Status | None, loop: Status | None, place: str, running: bool, now: datetime) -> Summary:
    """How far a loop's ``place`` is behind what the collector last saw of the source."""
    wal, reached = _said(collector, "wal_position"), _said(loop, place)
    if not running or wal is None or reached is None:
        return {"lag_bytes": None, "lag_seconds": None}
    missing = max(0, Lsn.parse(wal) - Lsn.parse(reached))
    return {"lag_bytes": missing, "lag_seconds": _age(collector, loop, missing, now)}


def _age(collector: Status | None, loop: Status | None, missing: int, now: datetime) -> float | None:
    has_all_that_came = loop is not collector and _said(loop, "offset") == _said(collector, "offset") is not None
    if missing == 0 or has_all_that_came:
        return 0.0
    committed_at = _said(loop, "committed_at")
    if committed_at is None:
        return None
    return round(max(0.0, (now.astimezone(UTC) - datetime.fromisoformat(committed_at)).total_seconds()), 3)
