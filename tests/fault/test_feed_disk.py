"""What a feed holds when the disk says no."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from feed_writer import SOURCE, History, history, rendered, transactions

from catchment.model.errors import TargetUnreachable
from catchment.targets.feed import FeedTarget

CALLS = [(os, "open"), (os, "pwrite"), (os, "write"), (os, "fsync"), (os, "ftruncate"), (Path, "replace")]
CALLS += [(Path, "rename"), (Path, "mkdir"), (Path, "unlink")]


def content(path: Path) -> bytes:
    """All files of the feed, which have nothing but what was committed."""
    active = Path(str(path).replace("{source}", SOURCE))
    length = json.loads(active.with_name(f"{active.name}.frontier").read_bytes())["length"]
    files = sorted(active.parent.glob(f"{active.stem}-*"))
    if active.exists():
        assert active.stat().st_size == length
        files.append(active)
    return b"".join(file.read_bytes() for file in files)


def apply_one_by_one(target: FeedTarget, taken: History) -> None:
    for items in transactions(taken):
        target.apply(SOURCE, items)


def apply_under_a_limit(path: Path) -> None:
    taken = history(seed=11, batches=40)
    target = FeedTarget("feed", str(path))
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, most))
    with pytest.raises(TargetUnreachable, match=r"orders\.jsonl: File too large; free some space") as raised:
        apply_one_by_one(target, taken)
    assert raised.value.source == SOURCE
    frontier = target.frontier(SOURCE)
    assert frontier
    assert taken[frontier.offset - 1][1].ends_transaction
    assert content(path) == rendered(taken[: frontier.offset])
    assert frontier.offset > 3

    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    target.apply(SOURCE, taken)
    assert content(path) == rendered(taken)


def test_promise_1_a_full_disk_leaves_what_was_committed_and_the_feed_goes_on_when_there_is_space(
    tmp_path: Path,
) -> None:
    # In a process of its own: the limit that stands for the disk is the process's.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, __file__, tmp_path / "{source}.jsonl"], check=True, env=environment)


class Failing:
    """Lets the ``fatal``-th of the feed's calls to the operating system fail, instead of doing its work or after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fatal: int, done: bool) -> None:
        self.count = 0
        self._fatal = fatal
        self._done = done
        # The machine goes on, so that nothing has to be durable, and the test is quick.
        monkeypatch.setattr(os, "fsync", os.fstat)
        for owner, name in CALLS:
            monkeypatch.setattr(owner, name, self._wrapped(getattr(owner, name)))

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            if self.count != self._fatal:
                return call(*arguments, **named)
            if self._done:
                result = call(*arguments, **named)
                if call.__name__ == "open":
                    os.close(result)
            raise OSError(errno.ENOSPC, "No space left on device")

        return wrapped


@pytest.mark.parametrize("done", [False, True], ids=["instead of its work", "after its work"])
def test_promise_1_any_call_to_the_operating_system_may_fail_once(tmp_path: Path, done: bool) -> None:
    taken = history(seed=5, batches=6)
    failed = 0
    for fatal in range(1, 1000):
        path = tmp_path / str(fatal) / "feed" / "{source}.jsonl"
        target = FeedTarget("feed", str(path), rotate_bytes=600)
        with pytest.MonkeyPatch.context() as monkeypatch:
            failing = Failing(monkeypatch, fatal, done)
            for items in transactions(taken):
                try:
                    target.apply(SOURCE, items)
                except TargetUnreachable:
                    target.apply(SOURCE, items)
                    failed += 1
        assert content(path) == rendered(taken)
        if failing.count < fatal:
            break
    assert failed == fatal - 1
    assert list(path.parent.glob(f"{SOURCE}-*"))
    assert failed > 30


@pytest.mark.parametrize("done", [False, True], ids=["instead of its work", "after its work"])
def test_promise_1_a_feed_forgotten_halfway_is_either_whole_or_begins_anew(tmp_path: Path, done: bool) -> None:
    taken = history(seed=5, batches=6)
    seen = set()
    for fatal in range(1, 1000):
        path = tmp_path / str(fatal) / "{source}.jsonl"
        target = FeedTarget("feed", str(path), rotate_bytes=600)
        apply_one_by_one(target, taken)
        with pytest.MonkeyPatch.context() as monkeypatch:
            failing = Failing(monkeypatch, fatal, done)
            with suppress(TargetUnreachable):
                target.forget(SOURCE)
        if failing.count < fatal:
            break
        seen.add(target.frontier(SOURCE))
        apply_one_by_one(target, taken)
        assert content(path) == rendered(taken)
        target.forget(SOURCE)
        assert [file.name for file in path.parent.iterdir()] == [f"{SOURCE}.jsonl.lock"]
    assert seen == {None, taken[-1][0]}


if __name__ == "__main__":
    apply_under_a_limit(Path(sys.argv[1]))
