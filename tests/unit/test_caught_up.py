"""When a run that ends by itself does not wait any longer."""

from __future__ import annotations

import pytest

from catchment.model.errors import SlotBusy, SourceUnreachable, TargetUnreachable
from catchment.pipeline import status
from catchment.pipeline.status import LoopStatus


@pytest.mark.parametrize("error", [SourceUnreachable("no answer"), TargetUnreachable("no answer")])
def test_a_server_that_never_answered_is_given_up_after_a_minute(
    monkeypatch: pytest.MonkeyPatch, error: SourceUnreachable | TargetUnreachable
) -> None:
    clock = [100.0]
    monkeypatch.setattr(status.time, "monotonic", lambda: clock[0])
    loop = LoopStatus("orders")
    loop.failed(error)
    assert not loop.given_up
    clock[0] += status.UNREACHED_SECONDS
    assert loop.given_up
    loop.well("streaming")
    loop.failed(error)
    clock[0] += 1000
    assert not loop.given_up  # it answered once: what it has is waited for


def test_what_an_earlier_run_still_holds_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "UNREACHED_SECONDS", 0.0)
    loop = LoopStatus("orders")
    loop.failed(SlotBusy("slot is active"))
    assert not loop.given_up
