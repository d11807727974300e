"""Transactions that were streamed and may not be visible yet: remembered, saved, let go of."""

from __future__ import annotations

from catchment.changes.snapshot import Snapshot
from catchment.pipeline.streamed import Streamed


def test_what_a_snapshot_sees_is_let_go_of_and_the_rest_is_known_after_a_restart() -> None:
    streamed = Streamed({})
    state = {**streamed.add([10, 11]), **streamed.add([12]), **streamed.add([]), **streamed.add([13, 20])}
    streamed.forget_seen(Snapshot.parse("12:14:12"))
    removed = streamed.add([30])
    left = {key: value for key, value in {**state, **removed}.items() if value is not None}
    assert streamed.unseen() == [12, 13, 20, 30]
    assert Streamed(left).unseen() == [12, 13, 20, 30]
    assert len(left) == 3


def test_nothing_streamed_is_nothing_to_let_go_of() -> None:
    streamed = Streamed({})
    streamed.forget_seen(Snapshot.parse("1:1:"))
    assert streamed.add([]) == {}


def test_numbers_are_not_given_twice_after_a_restart() -> None:
    first = Streamed({}).add([1])
    again = Streamed({key: value for key, value in first.items() if value is not None})
    assert not again.add([2]).keys() & first.keys()
