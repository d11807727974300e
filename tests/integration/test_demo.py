"""The demo as its visitor meets it: a process that shows something, ends when told, and leaves nothing behind."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from running_hub import rows

from catchment.config import Settings, load
from catchment.demo.binaries import find_binaries

DEMO = [sys.executable, "-m", "catchment.cli.main", "demo"]
PATIENCE = 120.0
SENTENCES = ["starting four servers", "filling in", "starting the hub"]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory with a short name that the server's user can reach, which pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="demo-", dir=os.environ.get("CATCHMENT_SCRATCH")) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def demo(scratch: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """One that is killed after the block if it still runs."""
    with subprocess.Popen(
        [*DEMO, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=scratch,
        env={**os.environ, "CATCHMENT_SCRATCH": str(scratch), "PYTHONUNBUFFERED": "1", **environment},
    ) as process:
        yield process
        process.kill()


def lines_until(process: subprocess.Popen[str], beginning: str) -> list[str]:
    """What it prints up to a line that begins so."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if line.startswith(beginning):
            return lines
    raise AssertionError(f"it ended without {beginning}: {lines[-20:]}")


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, complaints = process.communicate(timeout=PATIENCE)
    return process.returncode, output, complaints


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_nothing_is_left(scratch: Path) -> None:
    """The guard that cleans up behind a process that was killed takes a moment."""
    until(lambda: [*scratch.iterdir(), *processes_with(scratch)] == [])


def processes_with(scratch: Path) -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            if str(scratch) in (command := path.read_text(errors="replace")):
                yield command


def test_the_demo_answers_across_services_and_leaves_nothing_behind(scratch: Path) -> None:
    with demo(scratch, "--rate", "30") as process:
        shown = lines_until(process, "TO LOOK AT")
        answers = lines_until(process, "psql")
        process.send_signal(signal.SIGINT)
        status, _, complaints = ended(process)
    assert (status, complaints) == (0, "")
    assert [line for line in shown if line.startswith(tuple(SENTENCES))] == shown[: len(SENTENCES)]
    assert not [line for line in shown if "no hub runs here" in line]
    assert "DELIVERED BY" in shown[-1]
    assert "REVENUE FROM" in shown[-1]
    text = "\n".join(answers)
    assert all(name in text for name in ("paid, not shipped", "paid twice", "Northline", "days", "DE", "others"))
    assert "\x1b" not in text
    assert_nothing_is_left(scratch)


def test_what_is_kept_goes_on_where_it_ended(scratch: Path) -> None:
    kept = scratch / "kept"
    with demo(scratch, "--minutes", "0.01", "--rate", "50", "--seed", "7", "--keep", "kept") as process:
        status, output, complaints = ended(process)
    assert (status, complaints) == (0, "")
    starts = [shlex.split(line) for line in output.splitlines() if " start -D " in line]
    settings = load(kept / "catchment.toml")
    assert len(starts) == 4
    until(lambda: [*scratch.iterdir()] == [kept] and not list(processes_with(scratch)))
    try:
        for start in starts:
            subprocess.run(start, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=PATIENCE)
        run = [sys.executable, "-m", "catchment.cli.main", "run", "--until-caught-up"]
        subprocess.run([*run, "--config", str(kept / "catchment.toml")], check=True, timeout=PATIENCE)
        assert_the_ods_has_what_is_published(settings)
    finally:
        for start in starts:
            stop = [*start[: start.index("start")], "stop", "-D", start[start.index("-D") + 1], "-m", "immediate"]
            subprocess.run(stop, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=PATIENCE)


def assert_the_ods_has_what_is_published(settings: Settings) -> None:
    assert settings.ods is not None
    published: dict[tuple[str, str], list[str]] = {}
    for source in settings.source:
        with psycopg.connect(source.dsn) as connection:
            for table, columns in connection.execute("SELECT tablename, attnames::text[] FROM pg_publication_tables"):
                published[source.name, table] = columns
                there = rows(source.dsn, "public", table, columns)
                assert rows(settings.ods.dsn, source.name, table, columns) == there
                assert there, f"{source.name}.{table} is empty"
    assert "email" not in published["orders", "customers"]
    assert {"tracking", "parcels"} <= {table for name, table in published if name == "shipping"}
    assert not [table for _, table in published if table.startswith("tracking_")]


@pytest.mark.parametrize(
    ("sentence", "number", "arguments"),
    [("starting four servers", signal.SIGTERM, ["--keep", "kept"]), ("starting the hub", signal.SIGINT, [])],
)
def test_a_start_that_is_interrupted_leaves_nothing(
    scratch: Path, sentence: str, number: signal.Signals, arguments: list[str]
) -> None:
    with demo(scratch, *arguments) as process:
        lines_until(process, sentence)
        process.send_signal(number)
        process.send_signal(number)
        status, _, complaints = ended(process)
    assert (status, complaints) == (0, "")
    assert_nothing_is_left(scratch)


def test_a_killed_demo_leaves_nothing(scratch: Path) -> None:
    with demo(scratch) as process:
        lines_until(process, "starting the hub")
        process.kill()
    assert_nothing_is_left(scratch)


def test_a_broken_start_says_why_and_leaves_nothing(scratch: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="bin-") as name:
        broken = Path(name)
        broken.chmod(0o755)
        for program in find_binaries().iterdir():
            (broken / program.name).symlink_to(program)
        (broken / "pg_resetwal").unlink()
        (broken / "pg_resetwal").write_text("#!/bin/sh\necho out of order >&2; exit 1\n")
        (broken / "pg_resetwal").chmod(0o755)
        with demo(scratch, PG_BIN=name) as process:
            status, _, complaints = ended(process)
    assert (status, complaints) == (2, "error: pg_resetwal failed: out of order\n")
    assert_nothing_is_left(scratch)


def test_a_hub_that_ends_ends_the_demo_with_its_last_words(scratch: Path) -> None:
    with demo(scratch) as process:
        lines_until(process, "SOURCE")
        (pid_file,) = [
            path
            for path in scratch.glob("*/*/server.pid")
            if b"catchment.cli.main" in Path(f"/proc/{path.read_text()}/cmdline").read_bytes()
        ]
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        status, _, complaints = ended(process)
    assert status == 1
    assert complaints.startswith("error: the hub ended by itself; ")
    assert_nothing_is_left(scratch)


def test_nothing_is_kept_where_something_is(scratch: Path) -> None:
    (scratch / "mine").touch()
    with demo(scratch, "--keep", str(scratch)) as process:
        status, output, complaints = ended(process)
    assert (status, output) == (2, "")
    assert complaints == f"error: {scratch} is not empty; let --keep name a directory that is not there yet\n"
    assert (scratch / "mine").exists()
