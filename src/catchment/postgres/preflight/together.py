"""Preflight of several sources: what only shows when they are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from catchment.postgres.finding import Check, Finding
from catchment.postgres.preflight.report import Report

SAME_SLOT = Check(
    "slot_shared",
    "error",
    "its slot {slot} is that of source {other} too, on the same server",
    "only one of them could stream from it",
    "give each source its own slot in catchment.toml",
)
TOO_FEW_SLOTS = Check(
    "max_replication_slots_together",
    "error",
    "sources {sources} are on one server, where {free} of {most} replication slots are free",
    "each source needs one",
    "ALTER SYSTEM SET max_replication_slots = {more}; then restart the server",
)


def check_together(slots: Mapping[str, str], reports: Mapping[str, Report]) -> Iterator[Finding]:
    """``slots``: the name of each source's slot; slots belong to a server, not to a database."""
    taken: dict[tuple[str, str], str] = {}
    waiting: dict[str, list[str]] = {}
    for source, report in reports.items():
        if report.system is None:
            continue
        other = taken.setdefault((report.system, slots[source]), source)
        if other != source:
            yield SAME_SLOT.found(f"source {source}", slot=slots[source], other=other)
        elif report.wants_slot:
            waiting.setdefault(report.system, []).append(source)
    for sources in waiting.values():
        most, used = reports[sources[0]].slots
        if 0 < most - used < len(sources):
            where, names = f"source {sources[0]}", ", ".join(sources)
            yield TOO_FEW_SLOTS.found(where, sources=names, free=most - used, most=most, more=used + len(sources))
