"""What the loops count, and when a target is past its first load."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

from catchment.hub.memory import MemoryHub
from catchment.log.base import State
from catchment.log.memory import MemoryLog
from catchment.model.batch import Batch, Event, Message, Place, RefillFinished, RefillStarted, TableRows, rows_schema
from catchment.model.errors import CatchmentError, SourceUnreachable
from catchment.model.frontier import Frontier
from catchment.model.lsn import Lsn
from catchment.model.table import ReplicaIdentity, Table
from catchment.pipeline.deliver import Deliverer, Passed, is_loading
from catchment.pipeline.state import REFILL, TARGET, Refill, encode
from catchment.pipeline.status import LoopStatus, Stopping, keep_going
from catchment.targets.recording import RecordingTarget

AT = datetime(2026, 11, 23, tzinfo=UTC)
MESSAGE = Message("test", b"", Place(1, Lsn(1), 1, AT))
FILL = Refill(id="fill", tables=(), targets=("ods",), full=True, requests=())
TABLE = Table(1, "public", "places", (), (), ReplicaIdentity.DEFAULT, 1, 1)


def rows(count: int) -> tuple[TableRows, ...]:
    columns = [pa.array([None] * count, field.type) for field in rows_schema(())]
    return (TableRows(TABLE, pa.RecordBatch.from_arrays(columns, schema=rows_schema(()))),)


def batch(**parts: Any) -> Batch:
    return Batch(**{"source": "s", "after": Lsn(1), "until": Lsn(2), "part": 0, "ends_transaction": True} | parts)


def passed(*batches: Batch) -> Passed:
    passed = Passed()
    list(passed.watching((Frontier(uuid4(), offset, each.until, AT), each) for offset, each in enumerate(batches)))
    return passed


@pytest.mark.parametrize(
    ("told", "counts"),
    [
        ({"rows": rows(3)}, True),
        ({"events": (MESSAGE,)}, True),
        ({}, False),  # an idle position
        ({"rows": rows(3), "until": Lsn(1)}, False),  # a refill's
        ({"rows": rows(3), "until": Lsn(1), "ends_transaction": False}, False),  # a part of a large transaction
        ({"part": 2}, True),  # its end
    ],
    ids=["rows", "event", "idle", "refill", "part", "last part"],
)
def test_latency_is_of_what_the_source_committed(told: dict[str, Any], counts: bool) -> None:
    assert passed(batch(committed_at=AT, **told)).committed == [AT] * counts


def test_changes_and_batches_are_counted() -> None:
    seen = passed(batch(committed_at=AT, rows=rows(3)), batch(committed_at=AT), batch(committed_at=AT, rows=rows(2)))
    assert (seen.batches, seen.changes) == (3, 5)
    assert seen.last is not None
    assert seen.last.offset == 2


def test_a_target_loads_from_where_a_refill_of_all_its_tables_begins_to_its_end() -> None:
    under_way = replace(FILL, started=5)
    assert not is_loading(FILL, "ods", 9)
    assert [is_loading(under_way, "ods", position) for position in (3, 4, 9)] == [False, True, True]
    assert [is_loading(replace(under_way, finished=8), "ods", position) for position in (7, 8)] == [True, False]
    assert not is_loading(under_way, "feed", 9)
    assert not is_loading(replace(under_way, full=False), "ods", 9)


class Pipe:
    """A log with a writer, and a deliver loop in a thread."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.target = RecordingTarget("ods")
        self.writer = self.log.open_writer("orders")

    def append(self, *events: Event, state: State | None = None, committed_at: datetime = AT) -> None:
        lsn = self.writer.tail.frontier.lsn
        until = Lsn(lsn + 1) if MESSAGE in events else lsn
        self.writer.append(Batch("orders", lsn, until, 0, True, committed_at, events), state or {})

    def begin(self) -> None:
        offset = self.writer.tail.frontier.offset + 1
        refill = replace(FILL, started=offset)
        state = {f"{TARGET}ods": encode({"offset": offset}), f"{REFILL}fill": refill.encode()}
        self.append(RefillStarted("fill", (), ("ods",)), state=state)

    @contextmanager
    def running(self) -> Iterator[LoopStatus]:
        stopping = Stopping()
        deliverer = Deliverer("orders", self.target, self.log, MemoryHub(), stopping)
        arguments = (deliverer.run, deliverer.status, stopping, stopping.sleep)
        thread = threading.Thread(target=keep_going, args=arguments)
        thread.start()
        try:
            yield deliverer.status
        finally:
            stopping.now()
            thread.join()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def test_a_target_is_loaded_once_its_refill_is_finished_and_stays_so() -> None:
    pipe = Pipe()
    with pipe.running() as status:
        eventually(lambda: status.report("").detail.get("loaded") is False)
        pipe.begin()
        eventually(lambda: status.report("").detail.get("offset") == 1)
        assert status.report("").detail["loaded"] is False
        pipe.append(RefillFinished("fill"))
        eventually(lambda: status.report("").detail["loaded"] is True)
        pipe.append(RefillStarted("again", (), ("ods",)))
        eventually(lambda: status.report("").detail["offset"] == 3)
        assert status.report("").detail["loaded"] is True
    pipe.writer.close()


def test_a_deliver_loop_counts_what_its_target_has_taken_in() -> None:
    pipe = Pipe()
    pipe.begin()
    with pipe.running() as status:
        pipe.append(MESSAGE, committed_at=datetime.now(UTC))
        eventually(lambda: status.report("").detail["batches"] == 2)
        told = status.report("").detail
    assert sum(told["latency"]["counts"]) == 1
    assert told["latency"]["counts"][-1] == 0
    pipe.writer.close()


def test_what_fails_is_not_counted_as_applied_but_as_an_error() -> None:
    pipe = Pipe()
    pipe.begin()
    pipe.target.fail_next(SourceUnreachable("gone"))
    with pipe.running() as status:
        eventually(lambda: status.report("").detail["batches"] == 1)
        told = status.report("").detail
    assert (told["errors"], told["restarts"]) == ({"SourceUnreachable": 1}, 1)
    pipe.writer.close()


def test_a_defect_is_counted_by_the_name_of_all_errors() -> None:
    status, stopping = LoopStatus("orders"), Stopping()

    def loop() -> None:
        raise KeyError("canary")

    keep_going(loop, status, stopping, lambda _: stopping.now())
    assert status.report("").detail["errors"] == {CatchmentError.__name__: 1}
    assert status.report("").detail["restarts"] == 0
