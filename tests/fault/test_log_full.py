"""The embedded log on a disk without space: nothing is acknowledged, all is readable, and it goes on by itself.

The space is limited for real: by the file size limit of a process, and by a small file system that only one process
and its children see, so that nothing stays mounted when it ends. Run as a program, this module is that process.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from catchment.log.base import LogWriter
from catchment.log.sqlite import SqliteLog
from catchment.model.batch import Batch, Message, Place
from catchment.model.errors import LogError, LogFull
from catchment.model.lsn import Lsn

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def batch(after: int, part: int = 0, *, ends: bool = True, size: int = 20_000) -> Batch:
    until = after + 10 if ends else after
    message = Message("test", os.urandom(size), Place(until, Lsn(until), 7, NOW))
    return Batch("a", Lsn(after), Lsn(until), part, ends, NOW, (message,))


def append_until_full(writer: LogWriter) -> LogFull:
    for _ in range(10_000):
        try:
            writer.append(batch(writer.tail.frontier.lsn), {"last": b"%d" % writer.tail.frontier.offset})
        except LogFull as full:
            return full
    raise AssertionError("the disk was never full")


def goes_on(directory: Path, segment_bytes: int, limit: Callable[[], None], free: Callable[[], None]) -> None:
    """The same story for every way of running out of space."""
    log = SqliteLog(directory, segment_bytes)
    writer = log.open_writer("a")
    writer.append(batch(0))
    limit()
    full = append_until_full(writer)
    assert full.retry
    assert str(full).startswith("source a: ")
    assert "free some space" in str(full)
    tail = writer.tail
    last = tail.frontier.offset
    assert tail.state == log.state("a")
    for _ in range(3):
        with pytest.raises(LogFull):
            writer.append(batch(tail.frontier.lsn, size=500_000), {"last": b"never"})
        assert writer.tail == tail
    assert log.wait("a", 0, 0).last == last
    assert [found.offset for found, _ in log.read("a", 0, 99_999)] == list(range(1, last + 1))
    free()
    assert writer.append(batch(tail.frontier.lsn, 0, ends=False)) == last + 1
    assert writer.append(batch(tail.frontier.lsn, 1, size=500_000), {"last": b"later"}) == last + 2
    writer.close()
    log.close()
    log = SqliteLog(directory, segment_bytes)
    again = log.open_writer("a")
    assert (again.tail.frontier.offset, again.tail.frontier.lsn) == (last + 2, tail.frontier.lsn + 10)
    assert again.tail.state == {"last": b"later"}
    assert [found.offset for found, _ in log.read("a", 0, 99_999)] == list(range(1, last + 3))
    again.close()
    log.close()


def limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def no_room_in_a_file(directory: Path) -> None:
    goes_on(directory, 2**28, lambda: limit_files(300_000), lambda: limit_files(resource.RLIM_INFINITY))


def no_room_for_a_new_file(directory: Path) -> None:
    """Each transaction begins a file, which cannot be made."""
    goes_on(directory, 1, lambda: limit_files(10_000), lambda: limit_files(resource.RLIM_INFINITY))


def no_room_for_a_new_log(directory: Path) -> None:
    log = SqliteLog(directory)
    limit_files(10_000)
    for _ in range(3):
        with pytest.raises(LogFull):
            log.open_writer("a")
    limit_files(resource.RLIM_INFINITY)
    writer = log.open_writer("a")
    assert writer.append(batch(0)) == 1
    writer.close()
    log.close()


def full_disk(directory: Path, segment_bytes: int) -> None:
    ballast = directory / "ballast"
    ballast.write_bytes(bytes(1_200_000))
    goes_on(directory / "log", segment_bytes, lambda: None, ballast.unlink)


def full_disk_one_file(directory: Path) -> None:
    full_disk(directory, 2**28)


def full_disk_some_files(directory: Path) -> None:
    full_disk(directory, 100_000)


def full_disk_many_files(directory: Path) -> None:
    full_disk(directory, 1)


def full_disk_read_by_another_process(directory: Path) -> None:
    log = SqliteLog(directory, 100_000)
    writer = log.open_writer("a")
    append_until_full(writer)
    code = (
        "import sys; from pathlib import Path; from catchment.log.sqlite import SqliteLog\n"
        "print(*(found.offset for found, _ in SqliteLog(Path(sys.argv[1])).read('a', 0, 99999)))"
    )
    read = subprocess.run([sys.executable, "-c", code, directory], stdout=subprocess.PIPE, text=True, check=True)
    assert read.stdout.split() == [str(offset) for offset in range(1, writer.tail.frontier.offset + 1)]
    writer.close()
    log.close()


def succeeds(command: list[str | Path]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


LIMITED = (no_room_in_a_file, no_room_for_a_new_file, no_room_for_a_new_log)
FULL = (full_disk_one_file, full_disk_some_files, full_disk_many_files, full_disk_read_by_another_process)
MOUNT = 'mount -t tmpfs -o size=2m none "$0" && exec "$@"'


@pytest.mark.parametrize("scenario", LIMITED)
def test_promise_1_what_does_not_fit_is_not_acknowledged(scenario: Callable[[Path], None], tmp_path: Path) -> None:
    succeeds([sys.executable, __file__, scenario.__name__, tmp_path])


@pytest.mark.parametrize("scenario", FULL)
def test_promise_1_the_log_survives_a_full_disk(scenario: Callable[[Path], None], tmp_path: Path) -> None:
    apart: list[str | Path] = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*apart, MOUNT, tmp_path, "true"], check=False).returncode:
        pytest.skip("this system lets nobody mount a small file system of their own")
    succeeds([*apart, MOUNT, tmp_path, sys.executable, __file__, scenario.__name__, tmp_path])


def test_a_place_that_cannot_be_written_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LogError, match=r"source a: .*file.*; the log needs a local disk that it may write to"):
        SqliteLog(tmp_path / "file").open_writer("a")


if __name__ == "__main__":
    {scenario.__name__: scenario for scenario in (*LIMITED, *FULL)}[sys.argv[1]](Path(sys.argv[2]))
