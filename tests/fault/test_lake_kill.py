"""What a lake holds after its writer was killed before any of its calls to the operating system."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from lake_source import a_life, history, opened, record, tables

from catchment.model.batch import Batch
from catchment.model.errors import TargetUnreachable
from catchment.model.frontier import Frontier
from catchment.targets.lake import LakeTarget, checkpoint, folding

CALLS = ("open", "write", "link", "unlink", "rename", "replace", "mkdir", "rmdir")


@pytest.fixture(autouse=True)
def upkeep_at_every_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What usually comes after many commits comes after a few."""
    monkeypatch.setattr(folding, "_FILES", 2)
    monkeypatch.setattr(checkpoint, "_EVERY", 2)


class Killed(BaseException):
    """The process is gone."""


class Calls:
    """Counts the calls that change something or open a file; from the ``fatal`` one on none does anything."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fatal: int, error: type[BaseException] = Killed) -> None:
        self.count = 0
        self._fatal = fatal
        self._error = error
        # The machine goes on, so that nothing has to be durable, and the test is quick.
        monkeypatch.setattr(os, "fsync", os.fstat)
        for name in CALLS:
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            if self._error is Killed and self.count >= self._fatal:
                raise Killed
            if self.count == self._fatal:
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*arguments, **named)

        return wrapped


def deliver(target: LakeTarget, transaction: Iterable[tuple[Frontier, Batch]]) -> None:
    target.apply("orders", transaction)
    target.tend("orders", 60)


def seen(root: Path) -> tuple[Any, ...]:
    """All that readers see who go through the last record."""
    return (
        record(root)["frontier"],
        tables(root),
        *(history(root, table=f"public.{name}") for name in ("accounts", "facts") if record(root)["tables"]),
    )


def test_promise_1_and_3_a_lake_killed_before_any_call_holds_all_of_a_transaction_or_nothing_of_it(
    tmp_path: Path,
) -> None:
    life = a_life(tmp_path)
    first = random.randrange(1, 19)
    print("first call", first)
    old, new = 0, 0
    before = tmp_path / "before"
    for transaction in life:
        whole = tmp_path / "whole"
        if before.exists():
            shutil.copytree(before, whole)
        deliver(opened(whole), transaction)
        outcomes = (seen(before), seen(whole)) if before.exists() else ((None, {}), seen(whole))
        for fatal in range(first, 10_000, 19):
            root = tmp_path / "killed"
            if before.exists():
                shutil.copytree(before, root)
            with pytest.MonkeyPatch.context() as monkeypatch:
                calls = Calls(monkeypatch, fatal)
                with suppress(Killed):
                    deliver(opened(root), transaction)
            found = seen(root)
            assert found in outcomes
            old, new = old + (found == outcomes[0]), new + (found == outcomes[1])
            deliver(opened(root), transaction)
            assert seen(root) == outcomes[1]
            shutil.rmtree(root)
            if calls.count < fatal:
                break
        shutil.rmtree(before, ignore_errors=True)
        whole.rename(before)
    assert old > 5
    assert new >= len(life)


def test_promise_1_any_call_to_the_operating_system_may_fail_once(tmp_path: Path) -> None:
    life = a_life(tmp_path)
    whole = tmp_path / "whole"
    for transaction in life:
        deliver(opened(whole), transaction)
    failed = 0
    for fatal in range(random.randrange(1, 35), 10_000, 35):
        root = tmp_path / str(fatal)
        target = opened(root)
        with pytest.MonkeyPatch.context() as monkeypatch:
            calls = Calls(monkeypatch, fatal, OSError)
            for transaction in life:
                try:
                    deliver(target, transaction)
                except TargetUnreachable:
                    deliver(target, transaction)
                    failed += 1
        assert seen(root) == seen(whole)
        shutil.rmtree(root)
        if calls.count < fatal:
            break
    assert failed > 4


def test_promise_1_a_lake_forgotten_halfway_is_either_whole_or_begins_anew(tmp_path: Path) -> None:
    life = a_life(tmp_path)
    before = tmp_path / "before"
    for transaction in life[:3]:
        deliver(opened(before), transaction)
    expected = seen(before)
    found = set()
    for fatal in range(1, 1000, 6):
        root = tmp_path / str(fatal)
        shutil.copytree(before, root)
        with pytest.MonkeyPatch.context() as monkeypatch:
            calls = Calls(monkeypatch, fatal)
            with suppress(Killed):
                opened(root).forget("orders")
        frontier = opened(root).frontier("orders")
        found.add(frontier)
        if frontier is None:
            assert not (root / "lake" / "orders").exists()
            for transaction in life[:3]:
                deliver(opened(root), transaction)
        assert seen(root)[1:] == expected[1:]
        if calls.count < fatal:
            break
    assert found == {None, life[2][-1][0]}
