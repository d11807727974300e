"""Rows that ``verify`` found to differ, read again through the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from catchment.cli.requests import Asked, running_hub
from catchment.config import Settings

if TYPE_CHECKING:
    from catchment.pipeline.verify import TableReport

_MOST_KEYS = 10_000


def repair(settings: Settings, source: str, report: TableReport) -> str:
    """Have the running hub read them by their keys, or all of a table without one; returns the last outcome.

    Raises HubDown when none runs, HubError when it cannot be done.
    """
    from catchment.pipeline.session import REFILL

    outcome = ""
    with running_hub(settings) as hub:
        for limited in _pieces(report):
            arguments = {"tables": [report.table], "targets": None, "after": None, **limited}
            outcome = Asked(settings, hub, REFILL, source, arguments).outcome(by_stream=True)
            if outcome.startswith("refused"):
                break
    return outcome


def _pieces(report: TableReport) -> Iterator[dict[str, Any]]:
    if not report.differences:
        yield {"targets": [report.target]}
    for begin in range(0, len(report.differences), _MOST_KEYS):
        keys = [difference.key for difference in report.differences[begin : begin + _MOST_KEYS]]
        yield {"keys": [list(column) for column in zip(*keys, strict=True)]}
