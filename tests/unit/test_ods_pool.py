"""The pool lends sessions that nothing went wrong with."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from catchment.postgres import pool as module
from catchment.postgres.pool import Pool


class Recorded:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_a_session_is_lent_again() -> None:
    pool = Pool[Recorded](2)
    with pool.lend("orders", Recorded) as first:
        pass
    with pool.lend("orders", Recorded) as second:
        assert second is first


def test_a_session_whose_block_raised_is_closed_and_its_place_free() -> None:
    pool = Pool[Recorded](1)
    with pytest.raises(OSError, match="broken"), pool.lend("orders", Recorded) as first:
        raise OSError("broken")
    assert first.closed
    with pool.lend("orders", Recorded) as second:
        assert not second.closed


def test_a_session_that_cannot_be_opened_does_not_take_a_place() -> None:
    pool = Pool[Recorded](1)

    def refuse() -> Recorded:
        raise OSError("unreachable")

    for _ in range(2):
        with pytest.raises(OSError, match="unreachable"), pool.lend("orders", refuse):
            pass
    with pool.lend("orders", Recorded):
        pass


def test_no_more_than_the_most_are_lent_at_a_time() -> None:
    pool = Pool[Recorded](2)
    lock, lent, most = threading.Lock(), 0, 0

    def use(_: int) -> None:
        nonlocal lent, most
        for _ in range(50):
            with pool.lend("orders", Recorded):
                with lock:
                    lent += 1
                    most = max(most, lent)
                with lock:
                    lent -= 1

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(use, range(6)))
    assert most <= 2


def test_close_also_closes_what_comes_back_later() -> None:
    pool = Pool[Recorded](2)
    with pool.lend("orders", Recorded) as idle, pool.lend("orders", Recorded) as lent:
        pass
    with pool.lend("orders", Recorded) as lent:
        pool.close()
    assert idle.closed or lent.closed
    assert lent.closed


def test_what_is_old_is_closed_also_where_it_is_never_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    pool = Pool[Recorded](2)
    with pool.lend("orders", Recorded) as old, pool.lend("orders", Recorded) as unused:
        pass
    now = module._OLDEST / 2
    with pool.lend("orders", Recorded) as lent:
        assert lent is old
    now = module._OLDEST + 1
    with pool.lend("orders", Recorded) as young:
        assert young is not old
    assert old.closed
    assert unused.closed
    now += module._OLDEST
    with pool.lend("orders", Recorded) as lent:
        assert lent is young


def test_a_source_has_the_same_session_again_whoever_else_had_one_meanwhile() -> None:
    pool = Pool[Recorded](2)
    had: dict[str, Recorded] = {}
    for source in ("orders", "stock", "people", "stock", "orders", "people"):
        with pool.lend(source, Recorded) as session:
            assert had.setdefault(source, session) is session
    assert had["orders"] is not had["stock"]
    with pool.lend("orders", Recorded), pool.lend("people", Recorded) as session:
        assert session is had["stock"], "its own is lent"
