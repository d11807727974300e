"""What a backfill says of its rate before there is one."""

from __future__ import annotations

import pytest

from catchment.pipeline import counters
from catchment.pipeline.counters import Rate


def test_a_rate_is_told_once_rows_have_come_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(counters.time, "monotonic", lambda: clock[0])
    rate = Rate()
    assert rate.at(0) is None
    clock[0] += 60  # it waited for a lock
    assert rate.at(0) is None
    assert rate.at(8_000) is None
    clock[0] += 1
    assert rate.at(900_000) is None
    clock[0] += 1
    assert rate.at(1_008_000) == 504_000
