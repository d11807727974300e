"""A stream is read on while the caller works, and nobody else touches it meanwhile."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest

from catchment.model.errors import SourceUnreachable
from catchment.model.lsn import Lsn
from catchment.postgres.ahead import ReadAhead, reader
from catchment.postgres.stream import Received


class SlowStream:
    """Hands out its pieces; fails when somebody touches it while it is being read."""

    def __init__(self, *pieces: Received | Exception) -> None:
        self._pieces = list(pieces)
        self._reading = threading.Lock()
        self._received = 0
        self._held_from = 0
        self.held, self.let = threading.Event(), threading.Event()
        self.acknowledged: list[tuple[Lsn, bool]] = []
        self.closed = False

    @property
    def received(self) -> int:
        """How often ``receive`` was called."""
        return self._received

    def hold_from(self, number: int) -> None:
        """Have ``receive`` wait, from this call on, until it is let."""
        self._held_from = number

    def receive(self, timeout: float) -> Received:
        with self._reading:
            self._received += 1
            if 0 < self._held_from <= self._received:
                self.held.set()
                assert self.let.wait(10)
            piece = self._pieces.pop(0) if self._pieces else Received([])
        if isinstance(piece, Exception):
            raise piece
        return piece

    def acknowledge(self, until: Lsn, ask: bool = False) -> None:
        assert not self._reading.locked()
        self.acknowledged.append((until, ask))

    def close(self) -> None:
        assert not self._reading.locked()
        self.closed = True


MUCH = Received([b"much"], goes_on=True)
LITTLE = Received([b"little"])


@pytest.fixture
def reading() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as reading:
        yield reading


@pytest.fixture
def slow() -> Iterator[SlowStream]:
    stream = SlowStream(MUCH, LITTLE)
    yield stream
    stream.let.set()


def test_the_next_piece_is_read_while_the_caller_works(slow: SlowStream, reading: Executor) -> None:
    ahead = ReadAhead(slow, reading)
    assert ahead.receive(1) == MUCH
    while slow.received < 2:
        time.sleep(0.001)
    assert ahead.receive(1) == LITTLE
    ahead.close()
    assert slow.closed


def test_the_piece_after_the_next_is_read_before_anybody_takes_the_next_and_no_more(reading: Executor) -> None:
    stream = SlowStream(*[MUCH] * 9)
    ahead = ReadAhead(stream, reading)
    assert ahead.receive(1) == MUCH
    while stream.received < 3:
        time.sleep(0.001)
    time.sleep(0.02)
    assert stream.received == 3
    ahead.close()
    assert stream.received == 3


def test_a_stream_with_nothing_more_to_come_is_not_read_ahead(reading: Executor) -> None:
    stream = SlowStream(LITTLE, MUCH)
    ahead = ReadAhead(stream, reading)
    assert ahead.receive(1) == LITTLE
    ahead.close()
    assert stream.received == 1


def test_what_is_acknowledged_meanwhile_is_told_after_the_piece(slow: SlowStream, reading: Executor) -> None:
    slow.hold_from(2)
    ahead = ReadAhead(slow, reading)
    assert ahead.receive(1) == MUCH
    assert slow.held.wait(10)
    ahead.acknowledge(Lsn(1))
    ahead.acknowledge(Lsn(2), ask=True)
    assert slow.acknowledged == []
    slow.let.set()
    assert ahead.receive(1) == LITTLE
    assert slow.acknowledged == [(Lsn(2), True)]
    ahead.close()


def test_the_server_hears_from_a_caller_who_works_for_long(slow: SlowStream, reading: Executor) -> None:
    ahead = ReadAhead(slow, reading)
    ahead.receive(1)
    while not slow.acknowledged:  # from when the piece is there
        ahead.acknowledge(Lsn(1))
    assert ahead.receive(1) == LITTLE
    assert set(slow.acknowledged) == {(Lsn(1), False)}
    ahead.close()


def test_closing_waits_for_the_piece_and_forgets_it(slow: SlowStream, reading: Executor) -> None:
    slow.hold_from(2)
    ahead = ReadAhead(slow, reading)
    ahead.receive(1)
    assert slow.held.wait(10)
    threading.Timer(0.05, slow.let.set).start()
    ahead.close()
    assert slow.closed


def test_an_error_while_reading_ahead_is_raised_where_the_piece_is_asked_for(reading: Executor) -> None:
    cut = SourceUnreachable("the connection was cut", source="orders")
    ahead = ReadAhead(SlowStream(MUCH, cut), reading)
    assert ahead.receive(1) == MUCH
    with pytest.raises(SourceUnreachable, match="was cut"):
        ahead.receive(1)
    ahead.close()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priorities of their own")
def test_the_thread_that_reads_comes_first_from_connection_to_connection() -> None:
    if os.nice(0) > 9:
        pytest.skip("nobody can step back from here")

    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    priorities: list[tuple[int, int, int]] = []

    def work() -> None:
        for _ in range(2):
            before = priority()
            reading = reader()
            ahead = ReadAhead(SlowStream(MUCH, LITTLE), reading)
            while ahead.receive(1) != LITTLE:
                pass
            priorities.append((before, priority(), reading.submit(priority).result()))
            ahead.close()

    working = threading.Thread(target=work)
    working.start()
    working.join()
    (at_first, _, reads), (before, works, still_reads) = priorities
    assert at_first == reads == still_reads
    assert before == works > reads
