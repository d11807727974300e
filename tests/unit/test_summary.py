"""What ``status`` makes of what the loops say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catchment.cli.screen import sentences, show
from catchment.hub.base import DROPPED, Status
from catchment.hub.memory import MemoryHub
from catchment.hub.summary import NOT_RUNNING, SILENT, STARTING, summarise
from catchment.pipeline.supervisor import announce

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
TABLE = {"name": "public.accounts", "state": "streaming", "remedy": None}
SLOT = {"active": True, "wal_status": "reserved", "retained_bytes": 4096}


def collect(state: str = "streaming", remedy: str | None = None, **detail: Any) -> Status:
    said = {
        "position": "0/2000",
        "passed": "0/2000",
        "passed_at": (NOW - timedelta(seconds=90)).isoformat(),
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
        "stale_since": None,
        "position": "0/2000",
        "lag_bytes": 0,
        "lag_seconds": 0.0,
        "lag_history": [],
        "slot": SLOT,
        "rows_per_second": 12,
        "refills": [],
        "tables": [TABLE],
    }
    assert summarise([], [], (), True, NOW) == {"running": True, "remedy": None, "sources": [], "targets": []}
    assert target == {
        "name": "ods",
        "source": "orders",
        "state": "streaming",
        "remedy": None,
        "stale_since": None,
        "frontier": "0/1000",
        "lag_bytes": 0x1000,
        "lag_seconds": 30.0,
        "lag_history": [],
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
    assert (target["lag_bytes"], target["lag_seconds"]) == (0, 0.0)


def test_a_collector_that_has_passed_all_that_came_is_not_late_however_old_its_last_transaction() -> None:
    source, target = both(collect(passed="0/3000", wal_position="0/3000"), deliver(offset=7))
    assert (source["position"], source["lag_bytes"], source["lag_seconds"]) == ("0/2000", 0, 0.0)
    assert (target["lag_bytes"], target["lag_seconds"]) == (0, 0.0)


def test_a_collector_that_is_behind_is_late_by_what_it_has_passed() -> None:
    source, _ = both(collect(wal_position="0/3000"), deliver())
    assert (source["lag_bytes"], source["lag_seconds"]) == (0x1000, 90.0)


def test_the_history_of_lag_is_passed_on_while_the_hub_runs() -> None:
    said = collect(lag_history=[0.0, None, 1.5]), deliver(lag_history=[2.0])
    source, target = both(*said)
    assert (source["lag_history"], target["lag_history"]) == ([0.0, None, 1.5], [2.0])
    source, target = both(*said, running=False)
    assert (source["lag_history"], target["lag_history"]) == ([], [])


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
    source, target = both(running=False)
    assert (source["state"], source["position"], source["slot"]) == (NOT_RUNNING, None, None)
    assert (target["state"], target["frontier"], target["lag_bytes"]) == (NOT_RUNNING, None, None)


def test_without_a_hub_only_places_are_known() -> None:
    source, target = both(collect("stopped", "mend it"), deliver("retrying", "wait"), running=False)
    assert (source["state"], source["remedy"], source["position"]) == (NOT_RUNNING, None, "0/2000")
    assert (source["lag_bytes"], source["slot"], source["rows_per_second"]) == (None, None, None)
    assert source["tables"] == [{"name": "public.accounts", "state": NOT_RUNNING, "remedy": None}]
    assert (target["state"], target["remedy"], target["frontier"]) == (NOT_RUNNING, None, "0/1000")


def test_a_hub_of_which_nothing_is_heard_yet_is_starting() -> None:
    source, target = both()
    assert (source["state"], target["state"]) == (STARTING, STARTING)
    hub = MemoryHub()
    hub.report("worker-9", [replace(collect(), worker="worker-9")])  # of an earlier run
    announce(hub, {"worker-1": ["orders"], "worker-2": ["stock"]})
    hub.report("worker-1", [replace(status, beat=datetime.now(UTC)) for status in (collect(), deliver())])
    known = summarise(["orders", "stock"], ["ods"], hub.statuses(), True, datetime.now(UTC))
    assert [source["state"] for source in known["sources"]] == ["streaming", STARTING]
    assert [target["state"] for target in known["targets"]] == ["streaming", STARTING]


def test_promise_5_a_source_that_the_running_hub_does_not_know_needs_another_start() -> None:
    summary = summarise(["orders", "stock"], ["ods"], [collect(), deliver()], True, NOW)
    assert [source["state"] for source in summary["sources"]] == ["streaming", NOT_RUNNING]
    (sentence,) = sentences(summary)
    assert sentence.startswith("not running: source stock: the running hub does not know it; if it is new in catchment")


def test_a_target_is_never_ahead_of_the_log_it_is_built_from() -> None:
    source, _ = both(collect(position="0/2000"), deliver(frontier="0/3000"))
    assert source["position"] == "0/3000"
    source, _ = both(collect(position="0/2000"), deliver("refilling", frontier="0/3000"))
    assert source["position"] == "0/2000"  # it may be a place of an earlier log


def test_promise_5_a_table_that_stopped_in_a_target_is_said_to_be_stopped() -> None:
    said = "source orders, table public.accounts: mend it"
    summary = summarise(
        ["orders"], ["ods"], [collect(), deliver(remedy=said, stopped={"public.accounts": said})], True, NOW
    )
    assert summary["sources"][0]["tables"] == [{"name": "public.accounts", "state": "stopped", "remedy": said}]
    assert sentences(summary) == [f"stopped: {said}"]


def test_the_targets_of_a_dropped_source_are_dropped_too() -> None:
    source, target = both(Status("orders", None, "worker-1", DROPPED, None, None))
    assert (source["state"], target["state"], target["remedy"]) == (DROPPED, DROPPED, None)


def test_promise_5_what_is_stale_is_said_to_be_silent_and_since_when() -> None:
    reported = NOW - timedelta(minutes=5)
    source, target = both(
        replace(collect(beat=None), reported_at=reported), replace(deliver("stopped", "mend it"), reported_at=reported)
    )
    sentence = (
        "nothing was reported by worker-1 since 2026-11-23 11:55:00 UTC; "
        "see what `catchment run` prints: the disk with [hub] state may be full, or the process hangs"
    )
    for entry in (source, target):
        assert (entry["state"], entry["remedy"]) == (SILENT, sentence)
        assert entry["stale_since"] == "2026-11-23T11:55:00+00:00"
        assert (entry["lag_bytes"], entry["lag_seconds"], entry["lag_history"]) == (None, None, [])
    assert (source["position"], target["frontier"]) == ("0/2000", "0/1000")
    assert (source["slot"], source["rows_per_second"], source["refills"]) == (None, None, [])
    assert source["tables"] == [{"name": "public.accounts", "state": SILENT, "remedy": None}]


def test_a_loop_that_gives_no_sign_of_life_is_silent_while_its_worker_reports() -> None:
    hangs = replace(deliver(), reported_at=NOW, beat=NOW - timedelta(seconds=40))
    source, target = both(replace(collect(), reported_at=NOW), hangs)
    assert (source["state"], source["stale_since"]) == ("streaming", None)
    assert (target["state"], target["stale_since"]) == (SILENT, "2026-11-23T11:59:20+00:00")
    assert target["remedy"].startswith("target ods, source orders: its loop has given no sign of life since 2026-11-23")


def test_one_that_waits_for_a_server_is_not_silent() -> None:
    _, target = both(collect(), replace(deliver(), reported_at=NOW, beat=None))
    assert target["state"] == "streaming"


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
    assert sentences(summary) == [f"stopped: {said}", "retrying: is away"]


@pytest.mark.parametrize("running", [True, False])
def test_promise_5_a_full_disk_comes_first(running: bool) -> None:
    summary = summarise(["orders"], ["ods"], [collect(remedy="mend it"), deliver()], running, NOW, "free some space")
    assert sentences(summary)[0] == "full: free some space"


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
    assert "orders public.accounts: 1,000 of about 20,000 rows" in lines
    assert lines[3].split() == ["ods", "orders", "streaming", "0/1000", "4.1", "kB", "30.0", "s"]
