"""What a feed holds after its writer was killed, again and again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import feed_writer
from feed_writer import SOURCE, History, history, rendered


class Writer:
    """The process that forks children which write the feed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin
        assert process.stdout
        self._stdin, self._stdout = process.stdin, process.stdout

    def start(self, what: str) -> int:
        """The pid of the child that does it."""
        self._stdin.write(what + "\n")
        self._stdin.flush()
        return self._answer("started")

    def status(self) -> int:
        """How the child ended, once it has."""
        return self._answer("ended")

    def finish(self) -> None:
        self.start("write")
        assert self.status() == 0

    def lines(self) -> int:
        """How many lines of Catchment's feed package a whole history takes; the feed has it then."""
        self.start("lines")
        return self._answer("lines")

    def _answer(self, wanted: str) -> int:
        for line in self._stdout:
            word, number = line.split()
            if word == wanted:
                return int(number)
        raise AssertionError("the writer is gone")


@contextmanager
def writing(path: Path, rotate_bytes: int, seed: int, batches: int) -> Iterator[Writer]:
    command = [sys.executable, feed_writer.__file__, str(path), str(rotate_bytes), str(seed), str(batches)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Writer(process)
        assert process.stdin
        process.stdin.close()
        assert process.wait() == 0


def committed(path: Path) -> tuple[int, bytes]:
    """Offset and content of a feed, read as docs/reference/feed.md tells a reader to do it."""
    active = Path(str(path).replace("{source}", SOURCE))
    frontier_file = active.with_name(active.name + ".frontier")
    if not frontier_file.exists():
        return 0, b""
    frontier = json.loads(frontier_file.read_bytes())
    rotated = [active.with_name(f"{active.stem}-{number:012d}{active.suffix}") for number in range(1, frontier["next"])]
    content = b"".join(file.read_bytes() for file in rotated)
    if frontier["length"]:
        last = active if active.exists() else active.with_name(f"{active.stem}-{frontier['next']:012d}{active.suffix}")
        data = last.read_bytes()[: frontier["length"]]
        assert len(data) == frontier["length"]
        content += data
    return frontier["offset"] or 0, content


def assert_whole_transactions(path: Path, taken: History) -> int:
    offset, content = committed(path)
    assert content == rendered(taken[:offset])
    assert not offset or taken[offset - 1][1].ends_transaction
    return offset


def test_promise_1_and_3_a_feed_killed_at_random_moments_holds_every_change_once_and_whole_transactions_only(
    tmp_path: Path,
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    path = tmp_path / "{source}.jsonl"
    taken = history(seed, 400)
    killed = 0
    with writing(path, 1500, seed, 400) as writer:
        for _ in range(50):
            child = writer.start("write")
            time.sleep(chance.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
            killed += writer.status() == signal.SIGKILL
            if assert_whole_transactions(path, taken) == len(taken):
                break
        writer.finish()
    assert killed > 3
    assert committed(path) == (len(taken), rendered(taken))
    assert len(list(tmp_path.glob(f"{SOURCE}-*.jsonl"))) > 3


def test_promise_1_and_3_a_feed_killed_between_any_two_of_its_writers_lines_holds_every_change_once(
    tmp_path: Path,
) -> None:
    rotate_bytes, seed, batches = 400, 7, 3
    taken = history(seed, batches)
    with writing(tmp_path / "whole" / "{source}.jsonl", rotate_bytes, seed, batches) as writer:
        lines = writer.lines()
    assert lines > 100
    assert list((tmp_path / "whole").glob(f"{SOURCE}-*.jsonl"))
    path = tmp_path / "{source}.jsonl"
    first = random.randrange(1, 5)
    print("first line", first)
    interrupted = set()
    with writing(path, rotate_bytes, seed, batches) as writer:
        for line in range(first, lines + 1, 4):
            writer.start(f"line {line}")
            assert writer.status() == signal.SIGKILL
            interrupted.add(assert_whole_transactions(path, taken))
            writer.finish()
            assert committed(path) == (len(taken), rendered(taken))
            for file in tmp_path.glob(f"{SOURCE}*"):
                file.unlink()
    assert len(interrupted) > 2
