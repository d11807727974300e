"""The bell that wakes a loop."""

from __future__ import annotations

import select

from catchment.postgres.bell import Bell


def sleeps(bell: Bell) -> bool:
    return not select.select([bell], [], [], 0)[0]


def test_a_bell_ends_the_sleep_and_what_it_rang_for_is_heard_once() -> None:
    bell = Bell()
    assert sleeps(bell)
    assert not bell.has_rung()
    for _ in range(100_000):  # more than a pipe holds: whoever rings is never held up
        bell.ring()
    assert not sleeps(bell)
    while not sleeps(bell):
        bell.hush()
    assert bell.has_rung()
    assert not bell.has_rung()


def test_a_bell_that_rang_while_nobody_slept_ends_the_next_sleep() -> None:
    bell = Bell()
    bell.ring()
    assert bell.has_rung()
    assert not sleeps(bell)
