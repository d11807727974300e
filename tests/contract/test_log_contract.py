"""What every kind of log promises, the fake included; then what only the embedded one can show."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catchment.changes.backfilled import as_rows, held_schema
from catchment.log.base import Log, LogWriter, Span
from catchment.log.continuity import EPOCH, NO_LOG
from catchment.log.memory import MemoryLog
from catchment.log.sqlite import SqliteLog
from catchment.model.batch import Batch, Message, PackedRows, Place, TableRows
from catchment.model.errors import LogBusy, LogGap, LogTrimmed
from catchment.model.frontier import Frontier
from catchment.model.lsn import Lsn
from catchment.model.table import Column, ReplicaIdentity, Table

START = datetime(2026, 11, 23, tzinfo=UTC)
KINDS = ("memory", "sqlite", "sqlite rolling at every transaction", "sqlite rolling now and then")
ROLLING = {"sqlite": 2**28, KINDS[2]: 1, KINDS[3]: 1500}


@contextmanager
def made(kind: str, directory: Path) -> Iterator[MemoryLog | SqliteLog]:
    if kind == "memory":
        yield MemoryLog()
        return
    log = SqliteLog(directory / "log", segment_bytes=ROLLING[kind])
    yield log
    log.close()


@pytest.fixture(params=KINDS)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    with made(request.param, tmp_path) as made_log:
        yield made_log


@pytest.fixture
def rolling(tmp_path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(tmp_path / "log", segment_bytes=1)
    yield log
    log.close()


def batch(after: int, until: int, *, part: int = 0, ends: bool = True, content: bytes = b"x", of: str = "a") -> Batch:
    """One that carries something to tell it by."""
    committed_at = START + timedelta(microseconds=until)
    message = Message("test", content, Place(until, Lsn(until), 7, committed_at))
    return Batch(of, Lsn(after), Lsn(until), part, ends, committed_at, (message,))


def append(writer: LogWriter, *untils: int) -> None:
    for until in untils:
        writer.append(batch(writer.tail.frontier.lsn, until))


def everything(log: Log, after: int = 0, source: str = "a") -> list[tuple[Frontier, Batch]]:
    return list(log.read(source, after, log.wait(source, after, 0).last))


def positions(log: Log, after: int = 0) -> list[int]:
    return [frontier.lsn for frontier, _ in everything(log, after)]


def test_what_was_appended_is_read_in_order(log: Log) -> None:
    writer = log.open_writer("a")
    batches = [batch(0, 10), batch(10, 20), batch(20, 20), batch(20, 35)]
    assert [writer.append(one) for one in batches] == [1, 2, 3, 4]
    identity = writer.tail.frontier.log
    assert everything(log) == [
        (Frontier(identity, offset, one.until, one.committed_at), one) for offset, one in enumerate(batches, 1)
    ]
    assert [frontier.offset for frontier, _ in log.read("a", 1, 3)] == [2, 3]
    assert list(log.read("a", 4, 99)) == []
    writer.close()


def test_promise_1_packed_rows_are_read_back_behind_the_others(log: Log) -> None:
    table = Table(7, "public", "t", (Column(1, "n", "pg_catalog", "int4", -1, False),), (), ReplicaIdentity.NOTHING, 7)
    values = [[pa.array([text, None], pa.string())] for text in "ab"]
    first = Place(5, Lsn(10), 0, START)
    rows = TableRows(table, as_rows(table, values[0], first), "refill")
    message = pa.RecordBatch.from_arrays(values[1], schema=held_schema(1)).serialize()
    packed = PackedRows(table, message, 2, replace(first, seq=7), "refill")
    writer = log.open_writer("a")
    append(writer, 10)
    writer.append(replace(batch(10, 10), rows=(rows,), packed=packed))
    ((_, found),) = log.read("a", 1, 2)
    assert found.packed is None
    assert found.rows == (rows, TableRows(table, as_rows(table, values[1], replace(first, seq=7)), "refill"))
    assert found.changes == 4
    writer.close()


def test_promise_1_any_run_of_batches_can_be_read_alone(log: Log) -> None:
    writer = log.open_writer("a")
    append(writer, *range(10, 121, 10))
    for after in range(12):
        for through in range(after, 13):
            assert [frontier.offset for frontier, _ in log.read("a", after, through)] == list(
                range(after + 1, through + 1)
            )
    writer.close()


def test_sources_have_nothing_to_do_with_each_other(log: Log) -> None:
    one, other = log.open_writer("a"), log.open_writer("b")
    one.append(batch(0, 10), {"key": b"a"})
    other.append(batch(0, 7, of="b"), {"key": b"b"})
    assert one.tail.frontier.log != other.tail.frontier.log
    assert [found.source for _, found in everything(log, source="b")] == ["b"]
    assert (log.state("a"), log.state("b")) == ({"key": b"a"}, {"key": b"b"})
    one.close()
    other.close()


def test_a_new_log_begins_at_zero(log: Log) -> None:
    writer = log.open_writer("a")
    frontier = writer.tail.frontier
    assert (frontier.offset, frontier.lsn, frontier.committed_at, writer.tail.state) == (0, Lsn(0), EPOCH, {})
    assert log.wait("a", 0, 0) == Span(frontier.log, 1, 0, 0, None)
    assert log.trim("a", 100) == 1
    writer.close()


def test_a_log_that_does_not_exist_can_be_waited_for(log: Log) -> None:
    assert log.wait("a", 5, 0.001) == Span(NO_LOG, 1, 5, 0, None)
    assert list(log.read("a", 0, 5)) == []
    assert log.state("a") == {}
    assert (log.trim("a", 3), log.excess("a", 0)) == (1, 0)
    log.remove("a")


@pytest.mark.parametrize(
    "wrong",
    [
        batch(11, 20),
        batch(9, 20),
        batch(10, 20, part=1),
        batch(10, 9),
        batch(10, 20, part=0, ends=False),
        batch(10, 20, of="b"),
    ],
    ids=["gap", "overlap", "part", "backwards", "unfinished but moving", "another source"],
)
def test_promise_1_a_batch_that_does_not_continue_the_log_is_refused(log: Log, wrong: Batch) -> None:
    writer = log.open_writer("a")
    append(writer, 10)
    before = writer.tail
    with pytest.raises(LogGap, match="source a"):
        writer.append(wrong, {"key": b"value"})
    assert writer.tail == before
    assert log.state("a") == {}
    append(writer, 20)
    assert positions(log) == [10, 20]
    writer.close()


def test_promise_1_parts_of_a_transaction_follow_each_other(log: Log) -> None:
    writer = log.open_writer("a")
    writer.append(batch(0, 0, part=0, ends=False))
    for wrong in (batch(0, 0, part=0, ends=False), batch(0, 0, part=2, ends=False), batch(0, 10, part=0)):
        with pytest.raises(LogGap):
            writer.append(wrong)
    writer.append(batch(0, 10, part=1))
    append(writer, 20)
    writer.close()


def test_promise_1_a_second_writer_is_refused(log: Log) -> None:
    writer = log.open_writer("a")
    with pytest.raises(LogBusy, match="source a"):
        log.open_writer("a")
    append(writer, 10)
    writer.close()
    writer.close()
    again = log.open_writer("a")
    append(again, 20)
    again.close()


def test_promise_1_a_writer_goes_on_where_the_last_one_ended(log: Log) -> None:
    writer = log.open_writer("a")
    writer.append(batch(0, 10), {"one": b"1", "two": b"2"})
    writer.append(batch(10, 20), {"one": None, "three": b"3"})
    tail = writer.tail
    writer.close()
    again = log.open_writer("a")
    assert again.tail == tail
    assert again.tail.state == log.state("a") == {"two": b"2", "three": b"3"}
    assert again.append(batch(20, 30)) == 3
    again.close()


def test_promise_3_half_a_transaction_is_invisible(log: Log) -> None:
    writer = log.open_writer("a")
    append(writer, 10)
    tail = writer.tail
    for part in range(3):
        assert writer.append(batch(10, 10, part=part, ends=False), {"progress": b"%d" % part}) == 2 + part
        assert writer.tail == tail
        assert log.wait("a", 1, 0).last == 1
        assert list(log.read("a", 1, 99)) == []
        assert log.state("a") == {}
    writer.append(batch(10, 40, part=3), {"other": b"y"})
    assert log.wait("a", 1, 0).last == 5
    assert [found.part for _, found in everything(log, 1)] == [0, 1, 2, 3]
    assert log.state("a") == writer.tail.state == {"progress": b"2", "other": b"y"}
    writer.close()


def test_promise_3_opening_discards_an_unfinished_transaction_and_its_state(log: Log) -> None:
    writer = log.open_writer("a")
    writer.append(batch(0, 10), {"kept": b"old", "gone": b"x"})
    tail = writer.tail
    writer.append(batch(10, 10, part=0, ends=False), {"kept": b"new", "gone": None})
    writer.append(batch(10, 10, part=1, ends=False), {"more": b"z"})
    writer.close()
    again = log.open_writer("a")
    assert again.tail == tail
    assert again.append(batch(10, 50, content=b"another")) == 2
    assert everything(log, 1)[0][1].events[0] == batch(10, 50, content=b"another").events[0]
    assert log.state("a") == {"kept": b"old", "gone": b"x"}
    again.close()


def test_wait_says_how_much_there_is_and_since_when(log: Log) -> None:
    writer = log.open_writer("a")
    before = datetime.now(UTC)
    append(writer, 10, 20, 30)
    whole = log.wait("a", 0, 0)
    assert (whole.first, whole.last) == (1, 3)
    assert whole.oldest is not None
    assert before <= whole.oldest <= datetime.now(UTC)
    rest = log.wait("a", 1, 0)
    assert rest.oldest is not None
    assert rest.oldest >= whole.oldest
    assert 0 < rest.bytes < whole.bytes
    assert whole.bytes - rest.bytes == log.wait("a", 0, 0, most_bytes=1).bytes
    assert log.wait("a", 3, 0) == Span(whole.log, 1, 3, 0, None)
    assert log.wait("a", 9, 0).last == 9
    writer.close()


def test_promise_3_wait_is_cut_between_transactions_only(log: Log) -> None:
    writer = log.open_writer("a")
    append(writer, 10)
    one = log.wait("a", 0, 0).bytes
    for part in range(4):
        writer.append(batch(10, 10, part=part, ends=False))
    writer.append(batch(10, 20, part=4))
    append(writer, 30, 40)
    whole = log.wait("a", 0, 0).bytes
    assert log.wait("a", 0, 0, 0).last == 1
    assert log.wait("a", 0, 0, 4 * one).last == 1
    assert log.wait("a", 1, 0, 1).last == 6
    assert log.wait("a", 2, 0, 1).last == 6
    for most in range(0, whole + 10, 40):
        span = log.wait("a", 0, 0, most)
        assert span.last in (1, 6, 7, 8)
        assert span.bytes <= most or span.last == 1
        assert span.last == 8 or span.bytes + log.wait("a", span.last, 0, 1).bytes > most
    assert log.wait("a", 0, 0, whole).last == 8
    writer.close()


def woken(log: Log, after: int, act: Callable[[], object]) -> Span:
    """What a thread that waits for a minute sees when this is done meanwhile."""
    spans: list[Span] = []
    thread = Thread(target=lambda: spans.append(log.wait("a", after, 60)))
    thread.start()
    time.sleep(0.05)
    assert not spans
    act()
    thread.join(30)
    return spans[0]


def test_wait_wakes_up_when_a_transaction_is_finished(log: Log) -> None:
    writer = log.open_writer("a")
    assert woken(log, 0, lambda: append(writer, 10)).last == 1
    writer.append(batch(10, 10, part=0, ends=False))
    assert woken(log, 1, lambda: writer.append(batch(10, 20, part=1))).last == 3
    writer.close()


def test_wait_wakes_up_when_the_log_is_made(log: Log) -> None:
    def begin() -> None:
        writer = log.open_writer("a")
        append(writer, 10)
        writer.close()

    span = woken(log, 0, begin)
    assert span.last == 1
    assert span.log != NO_LOG


def test_waiting_ends_when_somebody_says_so(log: Log) -> None:
    writer = log.open_writer("a")
    append(writer, 10)
    assert woken(log, 1, lambda: log.wake("a")).last == 1
    writer.close()


def test_trimmed_batches_are_refused_to_readers(log: Log) -> None:
    writer = log.open_writer("a")
    append(writer, *range(10, 210, 10))
    first = log.trim("a", 9)
    assert 1 <= first <= 10
    assert log.wait("a", 0, 0).first == log.wait("a", 15, 0).first == first
    assert positions(log, first - 1) == list(range(first * 10, 210, 10))
    if first > 1:
        with pytest.raises(LogTrimmed, match="source a"):
            next(log.read("a", first - 2, 20))
    assert log.wait("a", 0, 0).last == 20
    append(writer, 210)
    identity = writer.tail.frontier.log
    writer.close()
    again = log.open_writer("a")
    assert again.tail.frontier.offset == 21
    assert log.wait("a", 0, 0).log == identity
    again.close()


def test_an_unfinished_transaction_survives_trimming(log: Log) -> None:
    writer = log.open_writer("a")
    append(writer, 10, 20)
    writer.append(batch(20, 20, part=0, ends=False))
    log.trim("a", 1000)
    writer.append(batch(20, 30, part=1))
    assert positions(log, 2) == [20, 30]
    writer.close()


def test_excess_is_what_has_to_go(log: Log) -> None:
    writer = log.open_writer("a")
    append(writer, *range(10, 210, 10))
    assert log.excess("a", 2**30) == 0
    through = log.excess("a", 0)
    assert 0 <= through <= 20
    assert log.trim("a", through) == through + 1
    append(writer, 210)
    assert log.excess("a", 2**30) == 0
    writer.close()


def test_remove_forgets_everything_and_the_next_log_is_another(log: Log) -> None:
    writer = log.open_writer("a")
    writer.append(batch(0, 10), {"key": b"value"})
    identity = writer.tail.frontier.log
    with pytest.raises(LogBusy):
        log.remove("a")
    writer.close()
    log.remove("a")
    assert log.wait("a", 0, 0) == Span(NO_LOG, 1, 0, 0, None)
    assert log.state("a") == {}
    again = log.open_writer("a")
    assert (again.tail.frontier.offset, again.tail.state) == (0, {})
    assert again.tail.frontier.log != identity
    again.append(batch(0, 77))
    assert positions(log) == [77]
    again.close()


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("append"), st.integers(0, 4), st.dictionaries(st.sampled_from("abc"), st.none() | st.binary())
        ),
        st.tuples(st.just("part"), st.dictionaries(st.sampled_from("abc"), st.none() | st.binary())),
        st.tuples(st.just("reopen")),
        st.tuples(st.just("wait"), st.integers(0, 30), st.integers(0, 3000)),
        st.tuples(st.just("read"), st.integers(0, 30), st.integers(0, 30)),
    ),
    max_size=30,
)


class Driven:
    """A log to which the same steps are done as to another one; says what could be seen."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.writer = log.open_writer("a")
        self.part = 0

    def do(self, step: tuple[object, ...]) -> object:
        match step:
            case ("append", int(bytes_more), dict(state)):
                end = self.writer.tail.frontier.lsn
                self.writer.append(batch(end, end + bytes_more, part=self.part), state)
                self.part = 0
            case ("part", dict(state)):
                end = self.writer.tail.frontier.lsn
                self.writer.append(batch(end, end, part=self.part, ends=False), state)
                self.part += 1
            case ("reopen",):
                self.writer.close()
                self.writer, self.part = self.log.open_writer("a"), 0
            case ("wait", int(after), int(most)):
                span = self.log.wait("a", after, 0, most)
                return span.first, span.last, span.bytes, span.oldest is None
            case ("read", int(after), int(through)):
                return [
                    (frontier.offset, frontier.lsn, found) for frontier, found in self.log.read("a", after, through)
                ]
        tail = self.writer.tail
        return tail.frontier.offset, tail.frontier.lsn, tail.frontier.committed_at, tail.state, self.log.state("a")


@pytest.mark.parametrize("kind", KINDS[1:])
@settings(max_examples=25, deadline=None)
@given(steps=steps)
def test_the_embedded_log_does_what_the_fake_does(kind: str, steps: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory, made(kind, Path(directory)) as log:
        fake, real = Driven(MemoryLog()), Driven(log)
        for step in steps:
            assert real.do(step) == fake.do(step)
        real.writer.close()


def files(log_directory: Path) -> list[str]:
    return sorted(path.name for path in log_directory.glob("*.sqlite"))


def test_files_are_named_by_their_first_offset_and_trimming_unlinks_them(rolling: SqliteLog, tmp_path: Path) -> None:
    directory = tmp_path / "log" / "a"
    writer = rolling.open_writer("a")
    append(writer, 10, 20)
    for part in range(3):
        writer.append(batch(20, 20, part=part, ends=False))
    writer.append(batch(20, 30, part=3))
    append(writer, 40)
    assert files(directory) == [f"{first:020}.sqlite" for first in (1, 2, 3, 7)]
    assert positions(rolling) == [10, 20, 20, 20, 20, 30, 40]
    assert rolling.trim("a", 5) == 3
    assert rolling.trim("a", 1000) == 7
    assert {path.name.partition("-")[0] for path in directory.iterdir()} == {f"{7:020}.sqlite", "writer.lock"}
    assert positions(rolling, 6) == [40]
    writer.close()


def test_excess_counts_whole_files(rolling: SqliteLog, tmp_path: Path) -> None:
    writer = rolling.open_writer("a")
    append(writer, 10, 20, 30, 40)
    writer.close()
    size = max(path.stat().st_size for path in (tmp_path / "log" / "a").glob("*.sqlite"))
    assert [rolling.excess("a", most * size) for most in (0, 1, 2, 3, 4)] == [3, 3, 2, 1, 0]


def test_a_file_that_vanishes_between_two_batches_is_reported(rolling: SqliteLog) -> None:
    writer = rolling.open_writer("a")
    append(writer, 10, 20, 30, 40)
    reading = rolling.read("a", 0, 4)
    assert next(reading)[0].offset == 1
    rolling.trim("a", 3)
    with pytest.raises(LogTrimmed, match="offset 2 is no longer kept, 4 is the first"):
        next(reading)
    writer.close()


def test_no_reader_holds_anything_between_two_batches(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path)
    writer = log.open_writer("a")
    append(writer, 10, 20)
    reading = log.read("a", 0, 2)
    assert next(reading)[0].offset == 1
    append(writer, *range(30, 3000, 10))
    writer.close()
    log.close()
    assert [path.name for path in (tmp_path / "a").iterdir() if path.name.endswith(("-wal", "-shm"))] == []
    assert next(reading)[0].offset == 2


def test_what_is_kept_on_disk_is_for_its_owner_alone(rolling: SqliteLog, tmp_path: Path) -> None:
    writer = rolling.open_writer("a")
    append(writer, 10, 20)
    directory = tmp_path / "log" / "a"
    assert directory.stat().st_mode & 0o777 == 0o700
    modes = {path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert len(list(directory.iterdir())) > 3
    assert modes == {0o600}
    writer.close()


def another_process(code: str, directory: Path) -> subprocess.CompletedProcess[str]:
    head = (
        "import sys; from pathlib import Path; from catchment.log.sqlite import SqliteLog; from catchment.model.errors "
        "import LogBusy; log = SqliteLog(Path(sys.argv[1]));"
    )
    return subprocess.run(
        [sys.executable, "-c", head + code, str(directory)], capture_output=True, text=True, check=True, timeout=60
    )


def test_promise_1_a_second_process_is_refused_the_right_to_write(rolling: SqliteLog, tmp_path: Path) -> None:
    attempt = "\ntry:\n    log.open_writer('a').close(); print('opened')\nexcept LogBusy as busy:\n    print(busy)"
    writer = rolling.open_writer("a")
    append(writer, 10)
    refused = another_process(attempt, tmp_path / "log")
    assert refused.stdout.startswith("source a: another writer has the log open; if it is not an earlier run")
    writer.close()
    assert another_process(attempt, tmp_path / "log").stdout == "opened\n"


def test_other_processes_read_and_wake_up_while_one_writes(rolling: SqliteLog, tmp_path: Path) -> None:
    waiting = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from catchment.log.sqlite import SqliteLog\n"
            "log, seen = SqliteLog(Path(sys.argv[1])), 0\n"
            "print('ready', flush=True)\n"
            "while seen < 5:\n"
            "    span = log.wait('a', seen, 60)\n"
            "    for frontier, _ in log.read('a', seen, span.last):\n"
            "        print(frontier.log, frontier.offset, frontier.lsn, flush=True)\n"
            "    seen = span.last\n",
            str(tmp_path / "log"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert waiting.stdout
    with waiting:
        assert waiting.stdout.readline() == "ready\n"
        writer = rolling.open_writer("a")
        identity = writer.tail.frontier.log
        for offset in range(1, 6):
            append(writer, offset * 10)
            log, *place = waiting.stdout.readline().split()
            assert (UUID(log), place) == (identity, [str(offset), str(Lsn(offset * 10))])
        writer.close()
    assert waiting.returncode == 0


def test_a_process_sees_the_log_that_another_one_made_anew(rolling: SqliteLog, tmp_path: Path) -> None:
    writer = rolling.open_writer("a")
    append(writer, 10)
    writer.close()
    before = rolling.wait("a", 0, 0).log
    another_process("log.remove('a'); log.open_writer('a').close()", tmp_path / "log")
    span = rolling.wait("a", 0, 0)
    assert span.last == 0
    assert span.log not in (before, NO_LOG)
