"""What a terminal shows: nothing cut off at 80 columns, everything at 160, trouble first where rows are short."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from catchment.cli.columns import Column, fitted, spark
from catchment.cli.progress import described, reading
from catchment.cli.screen import Picture, show
from catchment.hub.base import Status
from catchment.hub.summary import Summary, summarise

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
REFILL = {"tables": ["public.customers"], "rows": 12000, "of": 50000, "rows_per_second": 4000}
TROUBLE = (
    "source stock: publication catchment does not exist; have its owner run what `catchment source sql stock` prints"
)


def collect(source: str, state: str = "streaming", remedy: str | None = None, **detail: Any) -> Status:
    said = {
        "position": "16/B374D848",
        "wal_position": "16/B374D9FF",
        "passed": "16/B374D848",
        "passed_at": (NOW - timedelta(seconds=2)).isoformat(),
        "offset": 7,
        "committed_at": (NOW - timedelta(seconds=2)).isoformat(),
        "slot": {"active": True, "wal_status": "reserved", "retained_bytes": 123456789},
        "rows_per_second": 12345,
        "refills": [],
        "tables": [],
        "lag_history": [None] * 60 + [0.0] * 30 + [30.0] * 30,
    }
    return Status(source, None, "worker-1", state, remedy, None, said | detail)


def summary(*statuses: Status, targets: Sequence[str] = ("ods",)) -> Summary:
    names = [status.source for status in statuses]
    delivering = [
        replace(collect(name), target=target, detail={"frontier": "16/B374D848", "offset": 7, "lag_history": [0.0]})
        for name in names
        for target in targets
    ]
    return summarise(names, targets, [*statuses, *delivering], True, NOW)


def drawn(shown: Summary, width: int, height: int | None = None, below: Sequence[str | Text] = ()) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(Picture(shown, below, height))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 100, 160, 240])
def test_no_width_cuts_words_off(width: int) -> None:
    lines = drawn(summary(collect("orders", refills=[REFILL]), collect("stock", "stopped", TROUBLE)), width)
    text = " ".join(" ".join(lines).split())
    assert f"stopped: {TROUBLE}" in text
    assert "…" not in text
    assert max(map(len, lines)) <= width


def test_80_columns_show_what_matters_most() -> None:
    heading, orders, _, targets, ods, *_ = drawn(summary(collect("orders")), 80)
    assert heading.split("  ")[0] == "SOURCE"
    for word in ("STATE", "BEHIND", "LAST 10 MIN", "ROWS/S", "SLOT", "WAL KEPT"):
        assert word in heading
    for word in ("orders", "streaming", "2.0 s", "▁▁█", "12,345", "active", "123.5 MB"):
        assert word in orders
    assert targets.split()[:3] == ["TARGET", "SOURCE", "STATE"]
    assert ods.split()[:3] == ["ods", "orders", "streaming"]


def test_160_columns_show_all() -> None:
    heading, orders, *_ = drawn(summary(collect("orders")), 160)
    for word in ("POSITION", "LAG", "PEAK"):
        assert word in heading
    for word in ("16/B374D848", "439 B", "30.0 s"):
        assert word in orders


def test_a_name_of_30_letters_fits_too() -> None:
    _, orders, *_ = drawn(summary(collect("a_source_with_a_very_long_nam3")), 80)
    assert orders.startswith("a_source_with_a_very_long_nam3  streaming")


def test_a_backfill_has_its_rate_and_estimate() -> None:
    text = " ".join(" ".join(drawn(summary(collect("orders", refills=[REFILL])), 80)).split())
    assert "orders public.customers" in text
    assert "12,000 of about 50,000 rows, 4,000 rows/s, about 10 s left" in text
    assert described({**REFILL, "of": None}) == "12,000 rows, 4,000 rows/s"
    assert described({**REFILL, "rows_per_second": None}) == "12,000 of about 50,000 rows"
    assert described({**REFILL, "rows": 60000}) == "60,000 of about 50,000 rows, 4,000 rows/s"
    assert reading(REFILL) == "public.customers"
    assert reading({**REFILL, "tables": ["a", "b", "c"]}) == "a and 2 more"
    assert reading({**REFILL, "tables": []}) == "the last rows"


def test_a_slot_in_danger_is_said_in_words() -> None:
    slot = {"active": True, "wal_status": "unreserved", "retained_bytes": 1}
    assert "unreserved: source orders: the server is about to remove WAL that its slot needs; raise" in " ".join(
        drawn(summary(collect("orders", slot=slot)), 200)
    )


def test_where_rows_are_short_trouble_comes_first_and_stays_visible() -> None:
    many = [collect(f"service_{number}") for number in range(40)]
    many[33] = collect("service_33", "stopped", "source service_33: mend it")
    lines = drawn(summary(*many), 80, height=24)
    assert len(lines) <= 24
    assert "40 sources: 39 streaming, 1 stopped" in lines[0]
    assert any(line.startswith("service_33  stopped") for line in lines)
    assert "stopped: source service_33: mend it" in lines
    assert any(line.startswith("and ") and line.endswith(" more that do better") for line in lines)
    assert len(drawn(summary(*many), 80, height=200)) > 80


def test_what_goes_below_may_be_text_or_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    below = ["a line", Text("drawn", "bold")]
    assert drawn(summary(collect("orders")), 80, below=below)[-2:] == ["a line", "drawn"]
    show(lambda: (summary(collect("orders")), below), 0.0)
    assert capsys.readouterr().out.splitlines()[-2:] == ["a line", "drawn"]


def test_what_goes_below_hides_no_source_of_a_small_terminal() -> None:
    below = [Text("\n".join(f"answer {number}" for number in range(30)))]
    lines = drawn(summary(*(collect(name) for name in ("orders", "payments", "shipping"))), 80, 24, below)
    assert len(lines) <= 24
    for name in ("orders", "payments", "shipping"):
        assert sum(line.startswith(f"{name}  ") for line in lines) == 1
    assert "answer 0" in lines
    assert not any("more that do better" in line for line in lines)


def test_plain_blocks_that_follow_one_another_are_headed_by_their_time(capsys: pytest.CaptureFixture[str]) -> None:
    times = iter((0.0, 0.0, 1.0e18))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("catchment.cli.screen.time.monotonic", lambda: next(times))
        patch.setattr("catchment.cli.entry.time.sleep", lambda _: None)
        show(lambda: (summary(collect("orders")), ()), 5.0)
    printed = capsys.readouterr().out
    headings = [line for line in printed.splitlines() if line.startswith("--- ")]
    assert len(headings) == 2
    assert printed.startswith("--- 20")
    assert printed.isascii()


def test_columns_are_left_out_by_rank() -> None:
    columns = [Column("NAME", ["x"]), Column("FIRST TO GO", ["1"], rank=2), Column("SECOND", ["2"], rank=1)]
    shown = [[str(column.header) for column in fitted(columns, width).columns] for width in (25, 24, 12, 11, 1)]
    assert shown == [["NAME", "FIRST TO GO", "SECOND"], ["NAME", "SECOND"], ["NAME", "SECOND"], ["NAME"], ["NAME"]]


def test_a_sparkline_ends_now_and_leaves_the_unknown_blank() -> None:
    assert spark([], 10) == ""
    assert spark([0.0] * 120, 12) == "▁" * 12
    assert spark([None, 5.0], 60) == " " * 59 + "█"
    assert spark([10.0, *[0.0] * 119], 120) == "█" + "▁" * 119
    assert spark([10.0, *[0.0] * 119], 12) == "█" + "▁" * 11  # a peak is never averaged away
    assert spark([0.1] * 120, 4) == "▁▁▁▁"
    assert len(spark([1.0] * 120, 50)) == 40
