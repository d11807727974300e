"""The demo's company does the same again for the same seed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from catchment.demo import history
from catchment.demo.history import draw
from catchment.demo.life import NOW, THEN, Life, Pace, Step, lives
from catchment.demo.traffic import Schedule
from catchment.demo.transactions import TRANSACTIONS

MONDAY = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
PLACED_AT = 9  # the column of `past` from which on there are times


@pytest.fixture(autouse=True)
def few_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "ORDERS", 500)


def some(seed: int, pace: Pace = NOW) -> list[Life]:
    return list(islice(lives(seed, pace), 2000))


def happened(schedule: Schedule) -> list[tuple[float, int, str]]:
    """The first events, as a service would number the orders that are placed."""
    events = []
    placed = 0
    while len(events) < 3000:
        seconds, event = schedule.next()
        if isinstance(event, Life):
            placed += 1
            schedule.placed(placed, event, seconds)
            events.append((seconds, placed, f"placed {event.total} by {event.customer}"))
        else:
            events.append((seconds, event.order, event.step))
    return events


def test_the_seed_decides_what_becomes_of_every_order() -> None:
    assert some(1) == some(1)
    assert some(1) != some(2)


def test_the_seed_decides_the_traffic() -> None:
    assert happened(Schedule(1, 5.0)) == happened(Schedule(1, 5.0))
    assert happened(Schedule(1, 5.0)) != happened(Schedule(2, 5.0))


def test_traffic_goes_forward_in_time_at_the_rate_asked_for() -> None:
    times, _, events = zip(*happened(Schedule(1, 20.0)), strict=True)
    assert list(times) == sorted(times)
    placed = sum(event.startswith("placed") for event in events)
    assert placed / times[-1] == pytest.approx(20, rel=0.2)


def test_what_was_under_way_before_goes_on() -> None:
    ahead = draw(1, MONDAY).ahead
    assert all(planned.seconds > 0 and 1 <= planned.order <= 500 for planned in ahead)
    schedule = Schedule(1, 0.001, ahead)
    first = [schedule.next()[1] for _ in ahead[:20]]
    assert first == sorted(ahead, key=lambda planned: planned.seconds)[:20]


def test_the_seed_decides_the_past_and_no_clock_does() -> None:
    one, other = draw(1, MONDAY), draw(1, MONDAY + timedelta(days=1, seconds=7))
    assert [line.split("\t")[:PLACED_AT] for line in one.orders.splitlines()] == [
        line.split("\t")[:PLACED_AT] for line in other.orders.splitlines()
    ]
    assert (one.lines, one.ahead) == (other.lines, other.ahead)
    assert one.lines != draw(2, MONDAY).lines


def test_the_past_is_over_and_in_the_order_of_its_numbers() -> None:
    rows = [line.split("\t") for line in draw(1, MONDAY).orders.splitlines()]
    times = [[datetime.fromisoformat(time) for time in row[PLACED_AT:] if time != r"\N"] for row in rows]
    assert max(max(each) for each in times) <= MONDAY
    assert [each[0] for each in times] == sorted(each[0] for each in times)
    assert len(rows) == 500


@pytest.mark.parametrize("pace", [THEN, NOW])
def test_a_parcel_is_packed_then_shipped_then_delivered(pace: Pace) -> None:
    for life in some(1, pace):
        way = [Step.PACKED, Step.SHIPPED, Step.DELIVERED, Step.RETURNED]
        times = [life.steps[step] for step in way if step in life.steps]
        assert times == sorted(times)
        assert [step for step in way if step in life.steps] == way[: len(times)]
        assert Step.CANCELLED not in life.steps or Step.PACKED not in life.steps


@pytest.mark.parametrize(
    "fate",
    [
        {Step.PAID, Step.PACKED, Step.SHIPPED, Step.DELIVERED},
        {Step.CANCELLED},
        {Step.PAID, Step.CANCELLED, Step.REFUNDED},
        {Step.PAID, Step.PACKED, Step.SHIPPED, Step.DELIVERED, Step.RETURNED},
        {Step.PAID, Step.PAID_AGAIN, Step.PACKED, Step.SHIPPED, Step.DELIVERED},
        {Step.PAID},
        {Step.PAID, Step.PACKED},
        {Step.PAID, Step.PACKED, Step.SHIPPED},
        set(),
    ],
)
def test_things_go_wrong_in_every_way(fate: set[Step]) -> None:
    assert any(life.steps.keys() == fate for life in some(1))


def test_some_orders_are_shipped_before_they_are_paid() -> None:
    assert any(life.steps.get(Step.SHIPPED, 0) < life.steps.get(Step.PAID, 0) for life in some(1) if life.steps)


def test_every_step_writes_something() -> None:
    assert set(TRANSACTIONS) == set(Step)
