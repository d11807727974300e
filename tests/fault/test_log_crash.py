"""The embedded log when its writer is killed, at any moment, and when files come back from a crash damaged.

Run as a program, this module is the writer that gets killed: it forks children that append and say what was
acknowledged to them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from catchment.log.base import LogWriter
from catchment.log.segment import connect_writer
from catchment.log.sqlite import SqliteLog
from catchment.model.batch import Batch, Message, Place
from catchment.model.errors import LogCorrupt
from catchment.model.lsn import Lsn

START = datetime(2026, 11, 23, tzinfo=UTC)
SEGMENT_BYTES = 1200
ROUNDS = 60
STEPS = 60


def batch(after: int, until: int, part: int = 0, *, ends: bool = True) -> Batch:
    committed_at = START + timedelta(microseconds=until)
    content = random.Random(after * 1000 + part).randbytes(random.Random(until).randrange(2000))
    message = Message(f"part {part}", content, Place(until, Lsn(until), 7, committed_at))
    return Batch("a", Lsn(after), Lsn(until), part, ends, committed_at, (message,))


def append_transaction(writer: LogWriter, acknowledge: int) -> None:
    """One whose number of parts follows from where it begins, with state that tells how far the log is."""
    after = writer.tail.frontier.lsn
    parts = parts_at(after)
    for part in range(parts):
        writer.append(batch(after, after, part, ends=False), {"until": b"unfinished", f"part {part}": b"%d" % after})
    offset = writer.append(batch(after, after + 10, parts), {"until": b"%d" % (after + 10), f"part {parts}": None})
    os.write(acknowledge, b"%d %d\n" % (offset, after + 10))


def parts_at(after: int) -> int:
    return after // 10 * 7 % 4


def child(directory: Path, acknowledged: Path) -> None:
    acknowledge = os.open(acknowledged, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    writer = SqliteLog(directory, SEGMENT_BYTES).open_writer("a")
    while True:
        append_transaction(writer, acknowledge)


def killed_at_random_moments(directory: Path, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(ROUNDS):
        pid = os.fork()
        if pid == 0:
            child(directory / "log", directory / "acknowledged")
        time.sleep(chance.uniform(0.002, 0.06))
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def killed_at_every_step(directory: Path) -> None:
    """Each child dies just before its n-th operation on a file or a database."""
    for step in range(STEPS):
        pid = os.fork()
        if pid == 0:
            left = step

            def die(event: str, _: object) -> None:
                nonlocal left
                if event in ("open", "os.mkdir", "os.rename", "os.remove", "sqlite3.connect"):
                    left -= 1
                    if left < 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            place = directory / str(step)
            place.mkdir()
            sys.addaudithook(die)
            child(place / "log", place / "acknowledged")
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def read_back(directory: Path) -> tuple[int, int]:
    """Checks all that is visible in a log and that it can be gone on with; says where it ends."""
    log = SqliteLog(directory, SEGMENT_BYTES)
    before = dict(log.state("a"))
    found = list(log.read("a", 0, log.wait("a", 0, 0).last))
    offset, lsn = (found[-1][0].offset, found[-1][0].lsn) if found else (0, 0)
    assert [frontier.offset for frontier, _ in found] == list(range(1, offset + 1))
    assert not found or found[-1][1].ends_transaction
    for (_, one), (_, following) in pairwise(found):
        assert following.after == one.until
        assert following.part == (0 if one.ends_transaction else one.part + 1)
    for _, one in found:
        assert one == batch(one.after, one.until, one.part, ends=one.part == parts_at(one.after))
    writer = log.open_writer("a")
    assert (writer.tail.frontier.offset, writer.tail.frontier.lsn) == (offset, lsn)
    assert writer.tail.state == before == log.state("a") == expected_state(lsn)
    append_transaction(writer, os.open(os.devnull, os.O_WRONLY))
    assert log.wait("a", offset, 0).last == offset + 1 + parts_at(lsn)
    writer.close()
    log.close()
    return offset, lsn


def expected_state(lsn: int) -> dict[str, bytes]:
    state: dict[str, bytes] = {}
    for after in range(0, lsn, 10):
        parts = parts_at(after)
        state |= {f"part {part}": b"%d" % after for part in range(parts)} | {"until": b"%d" % (after + 10)}
        state.pop(f"part {parts}", None)
    return state


def last_acknowledged(path: Path) -> tuple[int, int]:
    lines = path.read_text().splitlines() if path.exists() else []
    offset, lsn = lines[-1].split() if lines else ("0", "0")
    return int(offset), int(lsn)


def run(scenario: str, directory: Path, seed: int = 0) -> None:
    subprocess.run([sys.executable, __file__, scenario, str(directory), str(seed)], check=True, timeout=120)


def test_promise_1_nothing_acknowledged_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    run("random", tmp_path, seed)
    acknowledged = last_acknowledged(tmp_path / "acknowledged")
    assert acknowledged > (0, 0)
    assert read_back(tmp_path / "log") >= acknowledged


def test_promise_1_a_writer_may_be_killed_at_any_step_of_making_a_file(tmp_path: Path) -> None:
    run("steps", tmp_path)
    reached = [last_acknowledged(tmp_path / str(step) / "acknowledged") for step in range(STEPS)]
    assert reached[0] == (0, 0)
    assert reached[-1] > (10, 0)
    for step, acknowledged in enumerate(reached):
        assert read_back(tmp_path / str(step) / "log") >= acknowledged


def test_promise_1_a_commit_waits_for_the_disk(tmp_path: Path) -> None:
    SqliteLog(tmp_path).open_writer("a").close()
    with closing(connect_writer(tmp_path / "a" / f"{1:020}.sqlite")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """A log as a crash leaves it: everything of the newest file is still in its write-ahead log."""
    log = SqliteLog(tmp_path / "alive")
    writer = log.open_writer("a")
    acknowledge = os.open(os.devnull, os.O_WRONLY)
    for _ in range(8):
        append_transaction(writer, acknowledge)
    shutil.copytree(tmp_path / "alive", tmp_path / "crashed", ignore=shutil.ignore_patterns("*-shm"))
    os.close(acknowledge)
    writer.close()
    log.close()
    return tmp_path / "crashed"


def newest_wal(directory: Path) -> Path:
    return max((directory / "a").glob("*-wal"))


@pytest.mark.parametrize("garbage", [b"\0" * 5000, b"\xff" * 4120, bytes(range(256)) * 40], ids=["0", "ff", "counting"])
def test_promise_1_garbage_behind_the_last_commit_is_no_loss(crashed: Path, garbage: bytes) -> None:
    with newest_wal(crashed).open("ab") as wal:
        wal.write(garbage)
    assert read_back(crashed)[1] == 80


def test_promise_3_a_torn_write_leaves_whole_transactions(crashed: Path, tmp_path: Path) -> None:
    size = newest_wal(crashed).stat().st_size
    ends = []
    for kept in range(0, size, size // 25):
        torn = tmp_path / f"torn at {kept}"
        shutil.copytree(crashed, torn)
        os.truncate(newest_wal(torn), kept)
        ends.append(read_back(torn)[1])
    assert ends == sorted(ends)
    assert ends[0] == 0
    assert len(set(ends)) > 5


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"\0" * 4096], ids=["empty", "header", "zeros"])
def test_a_file_that_was_being_made_is_made_again(tmp_path: Path, content: bytes) -> None:
    log = SqliteLog(tmp_path, SEGMENT_BYTES)
    writer = log.open_writer("a")
    with Path(os.devnull).open("wb") as nowhere:
        for _ in range(3):
            append_transaction(writer, nowhere.fileno())
    following = writer.tail.frontier.offset + 1
    lsn = writer.tail.frontier.lsn
    writer.close()
    log.close()
    for suffix in (".new", ".new-journal"):
        (tmp_path / "a" / f"{following:020}.sqlite{suffix}").write_bytes(content)
    (tmp_path / "a" / f"{999:020}.sqlite-wal").write_bytes(content)
    assert read_back(tmp_path)[1] == lsn
    assert not [path for path in (tmp_path / "a").iterdir() if path.suffix not in (".sqlite", ".lock")]


@pytest.mark.parametrize("content", [b"", b"no database" * 1000, b"SQLite format 3\0" + b"\0" * 5000])
def test_promise_5_a_file_that_was_emptied_or_overwritten_is_named(tmp_path: Path, content: bytes) -> None:
    log = SqliteLog(tmp_path, segment_bytes=1)
    writer = log.open_writer("a")
    for until in (10, 20):
        writer.append(batch(until - 10, until))
    writer.close()
    log.close()
    newest = tmp_path / "a" / f"{2:020}.sqlite"
    newest.write_bytes(content)
    for act in (lambda: log.open_writer("a"), lambda: log.wait("a", 0, 0), lambda: log.state("a")):
        with pytest.raises(LogCorrupt, match=f"source a: .*{newest.name}.*; check the disk"):
            act()
    log.close()


def test_promise_4_a_damaged_payload_is_noticed_and_named(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, segment_bytes=1)
    writer = log.open_writer("a")
    for until in (10, 20, 30):
        writer.append(batch(until - 10, until))
    writer.close()
    log.close()
    file = tmp_path / "a" / f"{2:020}.sqlite"
    stored = bytearray(file.read_bytes())
    stored[-100] ^= 1
    file.write_bytes(stored)
    reading = log.read("a", 0, 3)
    assert next(reading)[0].offset == 1
    with pytest.raises(LogCorrupt, match=f"{file.name}, offset 2: .*checksum"):
        next(reading)
    assert [frontier.offset for frontier, _ in log.read("a", 2, 3)] == [3]
    log.close()


def test_promise_1_a_file_that_is_missing_in_between_is_not_skipped(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, segment_bytes=1)
    writer = log.open_writer("a")
    for until in (10, 20, 30):
        writer.append(batch(until - 10, until))
    (tmp_path / "a" / f"{2:020}.sqlite").unlink()
    reading = log.read("a", 0, 3)
    assert next(reading)[0].offset == 1
    with pytest.raises(LogCorrupt, match="offset 2 is missing"):
        next(reading)
    with pytest.raises(LogCorrupt, match="offset 2 is missing"):
        log.wait("a", 1, 0)
    writer.close()
    log.close()


if __name__ == "__main__":
    if sys.argv[1] == "random":
        killed_at_random_moments(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        killed_at_every_step(Path(sys.argv[2]))
