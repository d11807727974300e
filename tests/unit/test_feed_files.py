"""A feed's files, and what is refused instead of being started over."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from catchment.changes.jsonlines import render
from catchment.model.batch import Batch, Message, Place
from catchment.model.errors import TargetError, TargetRefused, TargetUnreachable
from catchment.model.frontier import Frontier
from catchment.model.lsn import Lsn
from catchment.targets.feed import FeedTarget
from catchment.targets.feed.committed import BEGINNING, Committed

AT = datetime(2026, 11, 23, 4, 5, 6, 789012, UTC)
LOG = UUID(int=77)


def batch(offset: int, source: str = "orders", content: bytes = b"x" * 50) -> tuple[Frontier, Batch]:
    """A transaction that only emitted a message: a line of some 200 bytes."""
    until = Lsn(100 * offset)
    message = Message("test", content, Place(offset, until, offset, AT))
    return Frontier(LOG, offset, until, AT), Batch(source, Lsn(until - 100), until, 0, True, AT, (message,))


def rendered(*offsets: int) -> bytes:
    return b"".join(render("orders", (), batch(offset)[1].events) for offset in offsets)


@pytest.fixture
def feed(tmp_path: Path) -> FeedTarget:
    return FeedTarget("feed", str(tmp_path / "{source}.jsonl"))


@pytest.fixture
def active(tmp_path: Path) -> Path:
    return tmp_path / "orders.jsonl"


@pytest.fixture
def frontier_file(tmp_path: Path) -> Path:
    return tmp_path / "orders.jsonl.frontier"


def test_the_frontier_file_says_what_the_reference_page_says(
    feed: FeedTarget, active: Path, frontier_file: Path
) -> None:
    feed.apply("orders", [batch(1), batch(2)])
    assert active.read_bytes() == rendered(1, 2)
    assert json.loads(frontier_file.read_bytes()) == {
        "version": 1,
        "log": str(LOG),
        "offset": 2,
        "lsn": "0/C8",
        "committed_at": "2026-11-23T04:05:06.789012+00:00",
        "length": len(rendered(1, 2)),
        "next": 1,
    }


@pytest.mark.parametrize("committed", [BEGINNING, Committed(batch(3)[0], 12, 4)])
def test_the_frontier_file_reads_back(committed: Committed) -> None:
    assert Committed.from_bytes(committed.to_bytes()) == committed


def test_files_are_private_and_directories_are_made(tmp_path: Path) -> None:
    feed = FeedTarget("feed", str(tmp_path / "a" / "{source}" / "changes.jsonl"), rotate_bytes=1)
    feed.apply("orders", [batch(1)])
    feed.apply("orders", [batch(2)])
    directory = tmp_path / "a" / "orders"
    feed.apply("orders", [batch(3)])
    names = {"changes.jsonl.frontier", "changes.jsonl.lock", *(f"changes-{n:012d}.jsonl" for n in (1, 2, 3))}
    assert {path.name for path in directory.iterdir()} == names
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_promise_3_rotation_is_between_transactions_and_keeps_every_byte(tmp_path: Path, active: Path) -> None:
    feed = FeedTarget("feed", str(tmp_path / "{source}.jsonl"), rotate_bytes=len(rendered(1, 2)))
    for offset in range(1, 6):
        feed.apply("orders", [batch(offset)])
    assert (tmp_path / "orders-000000000001.jsonl").read_bytes() == rendered(1, 2)
    assert (tmp_path / "orders-000000000002.jsonl").read_bytes() == rendered(3, 4)
    assert active.read_bytes() == rendered(5)


def test_readers_may_delete_rotated_files(tmp_path: Path) -> None:
    feed = FeedTarget("feed", str(tmp_path / "{source}.jsonl"), rotate_bytes=1)
    for offset in range(1, 4):
        feed.apply("orders", [batch(offset)])
        (tmp_path / f"orders-{offset:012d}.jsonl").unlink()
    assert feed.frontier("orders") == batch(3)[0]


def test_bytes_behind_the_committed_length_are_cut_off(feed: FeedTarget, active: Path) -> None:
    feed.apply("orders", [batch(1)])
    with active.open("ab") as file:
        file.write(rendered(2, 3)[:-40])
    feed.apply("orders", [batch(2)])
    assert active.read_bytes() == rendered(1, 2)


def test_promise_1_a_failure_on_the_way_gives_the_space_back(feed: FeedTarget, active: Path) -> None:
    def failing() -> Iterator[tuple[Frontier, Batch]]:
        yield batch(1)
        yield batch(2)
        assert active.stat().st_size >= len(rendered(1))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        feed.apply("orders", failing())
    assert (feed.frontier("orders"), active.stat().st_size) == (None, 0)
    feed.apply("orders", [batch(1)])
    assert active.read_bytes() == rendered(1)


def test_promise_1_data_is_durable_before_the_frontier_file_and_both_before_apply_returns(
    feed: FeedTarget, active: Path, frontier_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed.apply("orders", [batch(1)])
    steps: list[str] = []
    names = {path.stat().st_ino: path.name for path in (active, active.parent)}
    sync, replace = os.fsync, Path.replace

    def recorded_sync(descriptor: int) -> None:
        steps.append(f"sync {names.get(os.fstat(descriptor).st_ino, 'new frontier')}")
        sync(descriptor)

    def recorded_replace(path: Path, by: Path) -> Path:
        steps.append(f"replace {by.name}")
        return replace(path, by)

    monkeypatch.setattr(os, "fsync", recorded_sync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    feed.apply("orders", [batch(2)])
    assert steps == [
        "sync orders.jsonl",
        "sync new frontier",
        f"replace {frontier_file.name}",
        f"sync {active.parent.name}",
    ]


def test_one_batch_at_a_time_is_in_memory(feed: FeedTarget, active: Path) -> None:
    def watched() -> Iterator[tuple[Frontier, Batch]]:
        for offset in range(1, 9):
            yield batch(offset)
            assert active.stat().st_size == len(rendered(*range(1, offset + 1)))

    feed.apply("orders", watched())
    assert feed.frontier("orders") == batch(8)[0]


def torn(frontier_file: Path, active: Path) -> None:
    frontier_file.write_bytes(frontier_file.read_bytes()[:30])


def empty(frontier_file: Path, active: Path) -> None:
    frontier_file.write_bytes(b"")


def of_a_later_version(frontier_file: Path, active: Path) -> None:
    frontier_file.write_bytes(frontier_file.read_bytes().replace(b'"version": 1', b'"version": 2'))


def missing(frontier_file: Path, active: Path) -> None:
    frontier_file.unlink()


def missing_beside_rotated_files(frontier_file: Path, active: Path) -> None:
    frontier_file.unlink()
    active.rename(active.with_name("orders-000000000001.jsonl"))


@pytest.mark.parametrize("damage", [torn, empty, of_a_later_version, missing, missing_beside_rotated_files])
def test_a_feed_whose_frontier_is_not_known_is_refused(
    feed: FeedTarget, frontier_file: Path, active: Path, damage: Callable[[Path, Path], None]
) -> None:
    feed.apply("orders", [batch(1)])
    damage(frontier_file, active)
    files = {path: path.read_bytes() for path in active.parent.iterdir()}
    calls: list[Callable[[], object]] = [lambda: feed.frontier("orders"), lambda: feed.apply("orders", [batch(2)])]
    for call in calls:
        with pytest.raises(TargetRefused, match=r"orders\.jsonl\.frontier .*; put the file back .* refill") as raised:
            call()
        assert raised.value.source == "orders"
    assert {path: path.read_bytes() for path in active.parent.iterdir()} == files


def cut_short(active: Path) -> None:
    os.truncate(active, 10)


def deleted(active: Path) -> None:
    active.unlink()


def rotated_by_somebody_else_and_shorter(active: Path) -> None:
    os.truncate(active, 10)
    active.rename(active.with_name("orders-000000000001.jsonl"))


@pytest.mark.parametrize("damage", [cut_short, deleted, rotated_by_somebody_else_and_shorter])
def test_a_feed_that_lost_committed_bytes_is_refused(
    feed: FeedTarget, active: Path, damage: Callable[[Path], None]
) -> None:
    feed.apply("orders", [batch(1)])
    damage(active)
    files = {path: path.read_bytes() for path in active.parent.iterdir()}
    with pytest.raises(TargetRefused, match=r"orders\.jsonl has \d+ bytes, but \d+ were committed; put the file back"):
        feed.apply("orders", [batch(2)])
    assert {path: path.read_bytes() for path in active.parent.iterdir()} == files


def test_a_file_that_bears_the_next_number_is_not_overwritten(tmp_path: Path) -> None:
    feed = FeedTarget("feed", str(tmp_path / "{source}.jsonl"), rotate_bytes=300)
    feed.apply("orders", [batch(1)])
    foreign = tmp_path / "orders-000000000001.jsonl"
    foreign.write_bytes(b"precious")
    with pytest.raises(TargetRefused, match=r"orders-000000000001\.jsonl exists already"):
        feed.apply("orders", [batch(2)])
    assert foreign.read_bytes() == b"precious"
    assert feed.frontier("orders") == batch(2)[0]


def test_a_refused_feed_can_be_forgotten(feed: FeedTarget, active: Path, frontier_file: Path) -> None:
    feed.apply("orders", [batch(1)])
    frontier_file.unlink()
    feed.forget("orders")
    assert [path.name for path in active.parent.iterdir()] == ["orders.jsonl.lock"]
    feed.apply("orders", [batch(1)])
    assert active.read_bytes() == rendered(1)


def test_a_second_writer_has_to_wait(feed: FeedTarget) -> None:
    def nested() -> Iterator[tuple[Frontier, Batch]]:
        with pytest.raises(TargetUnreachable, match="another process writes"):
            feed.apply("orders", [batch(1)])
        feed.apply("shipping", [batch(1, "shipping")])
        yield batch(1)

    feed.apply("orders", nested())
    assert feed.frontier("orders") == feed.frontier("shipping") == batch(1)[0]


@pytest.mark.parametrize(
    ("number", "error", "remedy"),
    [
        (errno.ENOSPC, TargetUnreachable, "free some space"),
        (errno.EDQUOT, TargetUnreachable, "free some space"),
        (errno.EIO, TargetUnreachable, "check the disk"),
        (errno.EACCES, TargetRefused, "let the user that runs Catchment write there"),
        (errno.EROFS, TargetRefused, "let the user that runs Catchment write there"),
    ],
)
def test_promise_5_errors_name_the_source_the_file_and_the_remedy(
    feed: FeedTarget,
    active: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[TargetError],
    remedy: str,
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    feed.apply("orders", [batch(1)])
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", fail)
        with pytest.raises(error) as raised:
            feed.apply("orders", [batch(2, content=b"canary")])
    sentence = str(raised.value)
    assert sentence.startswith(f"source orders: {active}: {os.strerror(number)}; {remedy}")
    assert "canary" not in sentence
    assert active.read_bytes() == rendered(1)


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    feed = FeedTarget("feed", str(tmp_path / "file" / "{source}.jsonl"))
    with pytest.raises(TargetRefused, match="give the feed another path"):
        feed.apply("orders", [batch(1)])
