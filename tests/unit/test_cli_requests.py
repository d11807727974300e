"""Asking the running hub: nobody waits in silence, and what is not wanted any more is never done."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from catchment.cli import progress, requests, source
from catchment.cli.main import app
from catchment.hub.base import DROPPED, Request, Status
from catchment.hub.lock import StateLock
from catchment.hub.sqlite import SqliteHub

REFILL = {"tables": ["public.customers", "public.items"], "rows": 12000, "of": 50000, "rows_per_second": 4000}
CONFIG = """
[[source]]
name = "orders"
dsn = "service=orders"
[ods]
dsn = "service=ods"
"""


class FakeHub:
    """A hub that is there, reports what it is told to, and does only what it is told to."""

    def __init__(self, directory: Path) -> None:
        self.config = directory / "catchment.toml"
        self.config.write_text(CONFIG)
        self._lock = StateLock(directory / "var")
        self.hub = SqliteHub(directory / "var" / "hub.sqlite")

    def report(self, state: str, remedy: str | None = None, **detail: Any) -> None:
        self.hub.report("worker-1", [Status("orders", None, "worker-1", state, remedy, None, detail)])

    def claim(self, kind: str) -> Request:
        while (request := self.hub.claim("worker-1", ["orders"], [kind])) is None:
            time.sleep(0.01)
        return request

    def finish(self, kind: str, outcome: str, after: float = 0.0) -> None:
        """Take up the next request in the background, and end it so."""

        def act() -> None:
            request = self.claim(kind)
            time.sleep(after)
            self.hub.finish(request.id, outcome)

        threading.Thread(target=act, daemon=True).start()

    def close(self) -> None:
        self.hub.close()
        self._lock.release()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "catchment.cli.main", *arguments, "--config", str(self.config)]

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--config", str(self.config)])

    def nothing_is_left_to_do(self) -> bool:
        self.hub.release("orders")
        return self.hub.claim("worker-1", ["orders"], ["refill", "drop"]) is None


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    with closing(FakeHub(tmp_path)) as made:
        made.report("streaming")
        yield made


def test_what_is_in_the_way_is_said_at_once_and_once(hub: FakeHub) -> None:
    hub.report("retrying", "source orders: connection refused; check that the server runs and that the dsn is right")
    threading.Timer(1.0, lambda: hub.finish("refill", "7 rows read")).start()
    result = hub("backfill", "orders")
    assert (result.exit_code, result.stdout) == (0, "7 rows read\n")
    assert result.stderr == (
        "waiting: retrying: source orders: connection refused; check that the server runs and that the dsn is right\n"
    )


def test_a_loop_that_takes_no_request_up_is_named(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_SETTLING_SECONDS", 0.2)
    threading.Timer(1.0, lambda: hub.finish("refill", "7 rows read")).start()
    assert hub("backfill", "orders").stderr == (
        "waiting: source orders, streaming: its loop has not looked at request 1 yet\n"
    )


def test_a_stopped_source_is_not_waited_for(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_SETTLING_SECONDS", 0.2)
    hub.report("stopped", "source orders: wal_level is replica; set it to logical")
    result = hub("backfill", "orders")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "error: stopped: source orders: wal_level is replica; set it to logical "
        "(request 1 is withdrawn, nothing was done)\n"
    )
    assert hub.nothing_is_left_to_do()


def test_a_source_whose_slot_is_lost_is_mended_by_its_backfill(hub: FakeHub) -> None:
    hub.report("stopped", "source orders: slot x no longer exists; run `catchment backfill orders`")
    hub.finish("refill", "started over", after=0.3)
    result = hub("backfill", "orders")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "started over\n", "")


def test_a_dropped_source_is_refused_at_once(hub: FakeHub) -> None:
    hub.report(DROPPED)
    result = hub("backfill", "orders")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: source orders: it was dropped (request 1 is withdrawn, nothing was done); ")
    assert hub("source", "drop", "orders").stderr.startswith("error: source orders: it was dropped already; ")
    assert hub.nothing_is_left_to_do()


def test_what_a_dropped_source_left_behind_can_still_be_purged(hub: FakeHub) -> None:
    hub.report(DROPPED)
    hub.finish("drop", "removed from ods")
    assert hub("source", "drop", "orders", "--purge").exit_code == 0


def test_a_source_that_the_hub_leaves_out_is_not_waited_for(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_UNHEARD_SECONDS", 0.2)
    hub.hub.report("worker-1", [Status("stock", None, "worker-1", "streaming", None, None)])
    assert "the running hub leaves it out (request 1 is withdrawn" in hub("backfill", "orders").stderr
    assert hub.nothing_is_left_to_do()


@contextmanager
def waiting(hub: FakeHub, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that has asked, and waits."""
    with subprocess.Popen(
        hub.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not asked(hub):
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.2)
        yield process


def asked(hub: FakeHub) -> bool:
    with closing(hub.hub._lasting._sqlite.cursor()) as cursor:
        return bool(cursor.execute("SELECT count(*) FROM request").fetchone()[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("command", ["source drop orders", "backfill orders"])
def test_promise_2_what_was_interrupted_is_never_carried_out(
    hub: FakeHub, command: str, number: signal.Signals
) -> None:
    with waiting(hub, *command.split()) as process:
        process.send_signal(number)
        printed, complaints = process.communicate()
    assert (process.returncode, printed) == (130, "")
    assert complaints.splitlines()[-1] == "request 1 is withdrawn, nothing was done"
    assert hub.nothing_is_left_to_do()
    assert hub.hub.find(1).outcome == "withdrawn: Ctrl-C"


def test_what_is_under_way_when_it_is_interrupted_goes_on_and_says_so(hub: FakeHub) -> None:
    with waiting(hub, "source", "drop", "orders") as process:
        hub.claim("drop")
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate()
    assert process.returncode == 130
    assert complaints.splitlines()[-1] == "request 1 is under way and goes on"
    assert hub.hub.find(1).outcome is None


@pytest.mark.parametrize(
    ("claimed", "said"),
    [(False, "request 1 is withdrawn, nothing was done"), (True, "request 1 is under way and goes on")],
)
def test_a_drop_that_takes_too_long_is_withdrawn(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, claimed: bool, said: str
) -> None:
    monkeypatch.setattr(source, "_DROP_SECONDS", 0.5)
    if claimed:
        threading.Thread(target=hub.claim, args=("drop",), daemon=True).start()
    result = hub("source", "drop", "orders")
    assert result.exit_code == 1
    assert f"error: source orders: not done after 0 s: {said}; `catchment status` says" in result.stderr


def test_elsewhere_than_on_a_terminal_progress_is_told_in_lines(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    hub.report("refilling", refills=[REFILL])
    hub.finish("refill", "50000 rows read", after=0.5)
    result = hub("backfill", "orders")
    assert result.stdout == "50000 rows read\n"
    assert result.stderr == (
        "public.customers and 1 more: 12,000 of about 50,000 rows, 4,000 rows/s, about 10 s left\n"
    )


def test_on_a_terminal_progress_is_a_bar(hub: FakeHub) -> None:
    hub.report("refilling", refills=[REFILL])
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    with subprocess.Popen(
        hub.command("backfill", "orders"), stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        request = hub.claim("refill")
        drawn = read_until(ours, lambda drawn: "about 10 s left" in drawn)
        hub.hub.finish(request.id, "50000 rows read")
        drawn += read_until(ours, lambda drawn: "50000 rows read" in drawn)
    os.close(ours)
    assert process.returncode == 0
    assert "orders public.customers" in drawn
    assert "━" in drawn


def read_until(terminal: int, happened: Callable[[str], bool]) -> str:
    drawn = b""
    with suppress(OSError):
        while not happened(drawn.decode(errors="replace")):
            drawn += os.read(terminal, 4096)
    return drawn.decode(errors="replace")


def test_a_silent_hub_is_named_while_waiting(hub: FakeHub) -> None:
    hub.report("streaming")
    past = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    with hub.hub._passing.transaction() as connection:
        connection.execute("UPDATE worker SET reported_at = ?", (past,))
    threading.Timer(1.0, lambda: hub.finish("refill", "7 rows read")).start()
    assert "waiting: silent: nothing was reported by worker-1 since " in hub("backfill", "orders").stderr
