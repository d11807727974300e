"""What ``status`` makes of what the loops say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catchment.cli.screen import sentences, show
from catchment.hub.base import Status
from catchment.hub.summary import NOT_RUNNING, summarise

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
TABLE = {"name": "public.accounts", "state": "streaming", "remedy": None}
SLOT = {"active": True, "wal_status": "reserved", "retained_bytes": 4096}


def collect(state: str = "streaming", remedy: str | None = None, **detail: Any) -> Status:
    said = {
        "position": "0/2000",
        "wal_position": "0/2000",
        "offset": 7,
        "committed_at": (NOW - timedelta(seconds=90)).isoformat(),
        "slot": SLOT,
        "rows_per_second": 12,
        "refills": [],
        "tables": [TABLE],
    }
    return Status("orders", None, "worker-1", state, remedy, NOW, said | detail)


def deliver(state: str = "streaming", remedy: str | None = None, **detail: Any) -> Status:
    said = {"frontier": "0/1000", "offset": 5, "committed_at": (NOW - timedelta(seconds=30)).isoformat()}
    return Status("orders", "ods", "worker-1", state, remedy, NOW, said | detail)


def both(*statuses: Status, running: bool = True) -> tuple[dict[str, Any], dict[str, Any]]:
    summary = summarise(["orders"], ["ods"], statuses, running, NOW)
    (source,), (target,) = summary["sources"], summary["targets"]
    return source, target


def test_the_summary_has_the_agreed_keys() -> None:
    source, target = both(collect(), deliver())
    assert source == {
        "name": "orders",
        "state": "streaming",
        "remedy": None,
        "position": "0/2000",
        "lag_bytes": 0,
        "lag_seconds": 0.0,
        "slot": SLOT,
        "rows_per_second": 12,
        "refills": [],
        "tables": [TABLE],
    }
    assert target == {
        "name": "ods",
        "source": "orders",
        "state": "streaming",
        "remedy": None,
        "frontier": "0/1000",
        "lag_bytes": 0x1000,
        "lag_seconds": 30.0,
    }


def test_lag_is_never_negative() -> None:
    source, target = both(collect(wal_position="0/800"), deliver())
    assert (source["lag_bytes"], target["lag_bytes"]) == (0, 0)
    assert (source["lag_seconds"], target["lag_seconds"]) == (0.0, 0.0)


def test_a_clock_that_is_ahead_makes_no_negative_age() -> None:
    _, target = both(collect(), deliver(committed_at=(NOW + timedelta(seconds=5)).isoformat()))
    assert target["lag_seconds"] == 0.0


def test_a_target_that_has_the_whole_log_is_not_late() -> None:
    _, target = both(collect(), deliver(offset=7))
    assert (target["lag_bytes"], target["lag_seconds"]) == (0x1000, 0.0)


def test_a_collector_that_is_behind_is_late_by_its_last_transaction() -> None:
    source, _ = both(collect(wal_position="0/3000"), deliver())
    assert (source["lag_bytes"], source["lag_seconds"]) == (0x1000, 90.0)


def test_lag_is_unknown_before_the_source_was_looked_at() -> None:
    source, target = both(collect(wal_position=None), deliver())
    assert (source["lag_bytes"], source["lag_seconds"]) == (None, None)
    assert (target["lag_bytes"], target["lag_seconds"]) == (None, None)


def test_a_target_that_never_said_how_old_it_is_has_no_age() -> None:
    _, target = both(collect(), deliver(committed_at=None, offset=None))
    assert target["lag_seconds"] is None


def test_offsets_that_nobody_knows_are_not_equal() -> None:
    _, target = both(collect(offset=None), deliver(offset=None))
    assert target["lag_seconds"] == 30.0


def test_what_never_ran_is_there_too() -> None:
    source, target = both()
    assert (source["state"], source["position"], source["slot"]) == (NOT_RUNNING, None, None)
    assert (target["state"], target["frontier"], target["lag_bytes"]) == (NOT_RUNNING, None, None)


def test_without_a_hub_only_places_are_known() -> None:
    source, target = both(collect("stopped", "mend it"), deliver("retrying", "wait"), running=False)
    assert (source["state"], source["remedy"], source["position"]) == (NOT_RUNNING, None, "0/2000")
    assert (source["lag_bytes"], source["slot"], source["rows_per_second"]) == (None, None, None)
    assert source["tables"] == [{"name": "public.accounts", "state": NOT_RUNNING, "remedy": None}]
    assert (target["state"], target["remedy"], target["frontier"]) == (NOT_RUNNING, None, "0/1000")


def test_every_target_is_there_for_every_source() -> None:
    summary = summarise(["a", "b"], ["ods", "feed"], (), True, NOW)
    assert [(target["source"], target["name"]) for target in summary["targets"]] == [
        ("a", "ods"),
        ("a", "feed"),
        ("b", "ods"),
        ("b", "feed"),
    ]


def test_each_trouble_is_one_sentence() -> None:
    table = {"name": "public.accounts", "state": "stopped", "remedy": "table public.accounts: mend it"}
    said = "table public.accounts: mend it"
    summary = summarise(
        ["orders"], ["ods"], [collect("streaming", said, tables=[table]), deliver("retrying", "is away")], True, NOW
    )
    assert sentences(summary) == [f"stopped: {said}", "retrying: target ods, is away"]


def test_elsewhere_than_on_a_terminal_it_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    refill = {"tables": ["public.accounts"], "rows": 1000, "of": 20000, "rows_per_second": None}
    long = "source orders: " + "word " * 60 + "end"
    summary = summarise(["orders"], ["ods"], [collect("refilling", long, refills=[refill]), deliver()], True, NOW)
    show(lambda: (summary, ["one more line"]), until=0.0)
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\x1b" not in printed
    lines = printed.splitlines()
    assert f"refilling: {long}" in lines
    assert lines[-1] == "one more line"
    assert lines[1].split()[:3] == ["orders", "refilling", "0/2000"]
    assert "1,000 of about 20,000 rows, 1 tables to go" in lines[1]
    assert lines[3].split() == ["ods", "orders", "streaming", "0/1000", "4.1", "kB", "30.0", "s"]
