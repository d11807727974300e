"""The deliver loop: where it begins, what it hides, how it paces."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from uuid import uuid4

import pytest

from catchment.hub.memory import MemoryHub
from catchment.log.base import Log, Span, State
from catchment.log.memory import MemoryLog
from catchment.log.sqlite import SqliteLog
from catchment.model.batch import Batch, Event, Message, Place, RefillFinished, RefillStarted
from catchment.model.errors import TableRefused, TargetUnreachable, TargetWentBack
from catchment.model.frontier import Frontier
from catchment.model.lsn import Lsn
from catchment.pipeline import deliver
from catchment.pipeline.collector import Collector
from catchment.pipeline.deliver import Deliverer, Refills, due_in
from catchment.pipeline.session import REFILL, Surroundings
from catchment.pipeline.state import REFILL as KEPT_REFILL
from catchment.pipeline.state import TARGET, Progress, Refill, encode
from catchment.pipeline.status import LoopStatus, Stopping, keep_going
from catchment.pipeline.worker import Hosted
from catchment.postgres.source import Source
from catchment.targets.base import Pace
from catchment.targets.recording import RecordingTarget

AT = datetime(2026, 11, 23, tzinfo=UTC)


def message(number: int) -> Message:
    return Message("test", str(number).encode(), Place(number, Lsn(number), 1, AT))


class Pipe:
    """A log with a writer, a hub and a target, and the loop between them in a thread."""

    def __init__(self, log: Log | None = None, most_bytes: int = 2**20) -> None:
        self.log = log or MemoryLog()
        self.hub = MemoryHub()
        self.target = RecordingTarget("recording", Pace(0, most_bytes))
        self.writer = self.log.open_writer("orders")

    def append(self, *events: Event, state: State | None = None) -> int:
        lsn = self.writer.tail.frontier.lsn
        return self.writer.append(Batch("orders", lsn, Lsn(lsn + 1), 0, True, AT, events), state or {})

    def begin_here(self) -> int:
        """A refill of all tables for the target begins with the next batch."""
        offset = self.writer.tail.frontier.offset + 1
        state = {f"{TARGET}recording": encode({"offset": offset})}
        self.append(RefillStarted("r", (), ("recording",)), state=state)
        return offset

    @contextmanager
    def running(self) -> Iterator[Deliverer]:
        stopping = Stopping()
        deliverer = Deliverer("orders", self.target, self.log, self.hub, stopping)
        arguments = (deliverer.run, deliverer.status, stopping, stopping.sleep)
        thread = threading.Thread(target=keep_going, args=arguments)
        thread.start()
        try:
            yield deliverer
        finally:
            stopping.now()
            thread.join()

    def deliver(self, event: Message) -> None:
        self.append(event)
        eventually(lambda: event.content in self.told())

    def told(self) -> list[bytes]:
        batches = self.target.batches("orders")
        return [event.content for batch in batches for event in batch.events if isinstance(event, Message)]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.writer.close()


def test_a_target_begins_with_its_refill_not_before(pipe: Pipe) -> None:
    pipe.append(message(1))
    with pipe.running() as deliverer:
        time.sleep(0.2)
        assert deliverer.position is None
        pipe.begin_here()
        pipe.append(message(2))
        eventually(lambda: pipe.told() == [b"2"])
    assert pipe.hub.claim("worker", ["orders"], [REFILL]) is None


def test_a_target_is_refilling_until_its_refill_of_all_tables_ends(pipe: Pipe) -> None:
    offset = pipe.begin_here()
    refill = Refill("r", (), ("recording",), full=True, started=offset)
    pipe.append(message(1), state={f"{KEPT_REFILL}r": refill.encode()})
    with pipe.running() as deliverer:
        eventually(lambda: pipe.told() == [b"1"])
        eventually(lambda: deliverer.status.state == "refilling")
        pipe.append(RefillFinished("r"))
        eventually(lambda: deliverer.status.state == "streaming")


def test_promise_1_a_target_goes_on_where_it_stands(pipe: Pipe) -> None:
    pipe.begin_here()
    pipe.append(message(1))
    with pipe.running():
        eventually(lambda: pipe.told() == [b"1"])
    pipe.append(message(2))
    with pipe.running():
        eventually(lambda: pipe.told() == [b"1", b"2"])


def test_promise_1_a_target_far_behind_gets_through_many_files_of_the_log(tmp_path: Path) -> None:
    with closing(SqliteLog(tmp_path / "log", segment_bytes=1)) as log:
        pipe = Pipe(log, most_bytes=1)
        pipe.begin_here()
        for number in range(20):
            pipe.append(message(number))
        with pipe.running() as deliverer:
            eventually(lambda: len(pipe.told()) == 20 or deliverer.status.remedy is not None)
            assert deliverer.status.remedy is None
        assert pipe.told() == [b"%d" % number for number in range(20)]
        pipe.writer.close()


def test_a_failing_target_is_tried_again_and_misses_nothing(pipe: Pipe) -> None:
    pipe.begin_here()
    pipe.target.fail_next(TargetUnreachable("gone"), TargetUnreachable("gone"))
    with pipe.running():
        pipe.append(message(1))
        pipe.append(message(2))
        eventually(lambda: pipe.told() == [b"1", b"2"])


def test_tables_that_refuse_hold_up_no_other_however_many_they_are() -> None:
    stopping, pauses = Stopping(), list[float]()
    errors = [TargetUnreachable("gone"), *(TableRefused("it refuses") for _ in range(200)), TargetUnreachable("gone")]

    def loop() -> None:
        if not errors:
            return stopping.now()
        raise errors.pop()

    keep_going(loop, LoopStatus("orders", "ods"), stopping, pauses.append)
    assert pauses == [0.5, 0.5]


def test_promise_1_a_loop_is_run_again_however_often_it_has_failed() -> None:
    stopping, pauses = Stopping(), list[float]()
    errors = [TargetUnreachable("gone") for _ in range(1_100)]  # some hours of a server that is down

    def loop() -> None:
        if not errors:
            return stopping.now()
        raise errors.pop()

    keep_going(loop, LoopStatus("orders", "ods"), stopping, pauses.append)
    assert (pauses[0], pauses[-1], len(pauses)) == (0.5, 15.0, 1_100)


def test_promise_5_what_keeps_failing_is_told_while_it_is_tried_again(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, trying, let = threading.Event(), threading.Event(), threading.Event()
    apply = pipe.target.apply

    def slowly(source: str, batches: Iterable[tuple[Frontier, Batch]], durable: bool) -> None:
        if failed.is_set():
            trying.set()
            assert let.wait(30)
        failed.set()
        apply(source, batches, durable)

    monkeypatch.setattr(pipe.target, "apply", slowly)
    pipe.target.fail_next(TargetUnreachable("gone"))
    pipe.begin_here()
    with pipe.running() as deliverer:
        assert trying.wait(30)
        state, remedy = deliverer.status.state, deliverer.status.remedy
        let.set()
        assert state == "streaming"
        assert remedy is not None
        assert remedy.startswith("target recording, source orders: gone; ")
        eventually(lambda: deliverer.status.remedy is None)


def test_while_more_comes_few_commits_wait_for_the_disk_and_in_the_end_one_does(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "_DURABLE_SECONDS", 1000.0)
    pipe.begin_here()
    with pipe.running() as deliverer:
        for number in range(20):
            pipe.deliver(message(number))
        assert pipe.target.durable.count(False) >= 19
        eventually(lambda: deliverer.durable == deliverer.position == 21)
        assert pipe.target.durable[-1]


def test_every_commit_is_durable_where_somebody_waits_for_the_end(pipe: Pipe) -> None:
    pipe.begin_here()
    with pipe.running() as deliverer:
        deliverer.patient = False
        for number in range(20):
            pipe.deliver(message(number))
    assert all(pipe.target.durable[1:])


def test_promise_1_the_log_keeps_what_a_crash_of_the_target_may_take_back(pipe: Pipe) -> None:
    for number in range(5):
        pipe.append(message(number))
    deliverer = Deliverer("orders", pipe.target, pipe.log, pipe.hub, Stopping())
    deliverer.identity, deliverer.position, deliverer.durable = pipe.log.wait("orders", 0, 0).log, 5, 3
    collector = cast("Collector", SimpleNamespace(reached=5, keep=None))
    source = cast("Source", SimpleNamespace(name="orders"))
    Hosted(source, deliverer.status, collector, [deliverer], Stopping()).trim(pipe.log, 2**40)
    assert pipe.log.wait("orders", 0, 0).first == 4


def test_promise_2_what_a_backfill_needs_of_the_log_is_kept_while_its_source_cannot_be_reached(tmp_path: Path) -> None:
    pipe = Pipe(SqliteLog(tmp_path / "log", segment_bytes=1))
    source, stopping = Source("orders", ""), Stopping()
    around = Surroundings(source, ("recording",), pipe.log, pipe.hub, "worker", tmp_path, LoopStatus("orders"))
    deliverer = Deliverer("orders", pipe.target, pipe.log, pipe.hub, stopping)
    hosted = Hosted(source, around.status, Collector(around, stopping), [deliverer], stopping)
    refill = Refill("r", (1,), ("recording",), full=True, started=4)
    half_read = refill.with_progress(Progress(1, 0, None, since=2, rows=7))

    def first_kept(refill: Refill) -> int:
        last = pipe.append(message(0), state={f"{KEPT_REFILL}r": refill.encode()})
        deliverer.identity, deliverer.durable = pipe.log.wait("orders", 0, 0).log, last
        hosted.trim(pipe.log, 1)
        return pipe.log.wait("orders", 0, 0).first

    with closing(pipe.writer):
        for number in range(5):
            pipe.append(message(number))
        assert first_kept(half_read) == 3
        assert first_kept(refill) == 4
        assert first_kept(replace(refill, finished=7)) == 8


def test_promise_1_a_target_that_went_back_is_given_again_what_it_lost(pipe: Pipe) -> None:
    pipe.begin_here()
    with pipe.running():
        for number in range(3):
            pipe.append(message(number))
        eventually(lambda: pipe.told() == [b"0", b"1", b"2"])
        del pipe.target.recording["orders"][2:]
        pipe.target.fail_next(TargetWentBack("it lost something"))
        pipe.append(message(3))
        eventually(lambda: pipe.told() == [b"0", b"1", b"2", b"3"])


def test_a_target_is_tended_in_rounds_without_work_and_behind_an_apply_for_a_share_of_its_time(pipe: Pipe) -> None:
    pipe.begin_here()
    pipe.target.seconds = 0.2
    with pipe.running():
        eventually(lambda: 0 in pipe.target.tended)
    assert any(0.1 <= seconds < 30 for seconds in pipe.target.tended)
    assert pipe.target.tended[0] > 0


def test_a_target_that_the_log_was_trimmed_past_asks_for_a_refill(pipe: Pipe) -> None:
    pipe.begin_here()
    with pipe.running() as deliverer:
        eventually(lambda: deliverer.position == 1)
    for number in range(5):
        pipe.append(message(number))
    pipe.log.trim("orders", 4)
    with pipe.running():
        eventually(lambda: pipe.hub.claim("worker", ["orders"], [REFILL]) is not None)
        pipe.begin_here()
        pipe.append(message(9))
        eventually(lambda: pipe.told() == [b"9"])


def test_a_target_whose_storage_was_lost_begins_with_its_last_refill_while_it_is_kept(pipe: Pipe) -> None:
    pipe.begin_here()
    pipe.append(message(1))
    with pipe.running():
        eventually(lambda: pipe.told() == [b"1"])
    pipe.target = RecordingTarget("recording")
    with pipe.running():
        eventually(lambda: pipe.told() == [b"1"])


def test_a_log_made_anew_is_begun_anew(pipe: Pipe) -> None:
    pipe.begin_here()
    pipe.append(message(1))
    with pipe.running():
        eventually(lambda: pipe.told() == [b"1"])
        pipe.writer.close()
        pipe.log.remove("orders")
        pipe.writer = pipe.log.open_writer("orders")
        pipe.begin_here()
        pipe.append(message(2))
        eventually(lambda: pipe.told() == [b"1", b"2"])


def test_refills_for_other_targets_are_hidden_without_a_gap() -> None:
    log = uuid4()
    events: list[tuple[Event, ...]] = [
        (RefillStarted("mine", (), ("ods", "feed")),),
        (RefillStarted("other", (), ("feed",)),),
        (RefillFinished("other"), message(1)),
        (RefillFinished("mine"),),
    ]
    batches = [
        (Frontier(log, offset, Lsn(offset), AT), Batch("orders", Lsn(0), Lsn(0), 0, True, AT, told))
        for offset, told in enumerate(events)
    ]
    seen = list(Refills("ods", []).addressed(batches))
    assert [frontier.offset for frontier, _ in seen] == [0, 1, 2, 3]
    assert [batch.events for _, batch in seen] == [events[0], (), (message(1),), events[3]]


def test_a_pace_waits_for_time_or_bytes_and_never_without_reason() -> None:
    now = datetime.now(UTC)
    slow = Pace(delay=60, bytes=1000)

    def span(bytes_: int, age: float) -> Span:
        return Span(uuid4(), 1, 2, bytes_, now - timedelta(seconds=age))

    assert due_in(span(1, 0), Pace(0, 1000)) == 0
    assert 0 < due_in(span(999, 1), slow) <= 59
    assert due_in(span(1000, 1), slow) == 0
    assert due_in(span(1, 61), slow) == 0
