"""``catchment demo``: a whole company on this machine."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from catchment.cli.status import gather
from catchment.config import load
from catchment.hub.summary import Summary
from catchment.model.errors import HubDown

if TYPE_CHECKING:
    from catchment.demo.company import Company

_GRACE_SECONDS = 30.0


def demo(
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="N", min=0, help="End after so long; default: at Ctrl-C.")
    ] = None,
) -> None:
    """Run a whole company on this machine.

    A shop with live traffic, a warehouse and a hub between them; nothing is left behind.

    Example: catchment demo --minutes 5
    """
    from catchment.cli.screen import show
    from catchment.demo.company import Company

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    until = math.inf if minutes is None else time.monotonic() + 60 * minutes
    with suppress(KeyboardInterrupt), Company() as company, _hub(company) as hub, _undisturbed_end():
        settings = load(company.config)

        def look() -> tuple[Summary, list[str]]:
            if hub.poll() is not None:
                raise HubDown("the hub ended by itself", remedy=_last_words(company))
            return gather(settings), [_compared(table, rows) for table, rows in company.counts().items()]

        show(look, until)


@contextmanager
def _undisturbed_end() -> Iterator[None]:
    """After this block nobody's impatience cuts the clean-up short."""
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def _hub(company: Company) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "catchment.cli.main", "run", "--config", str(company.config)]
    with (company.directory / "run.log").open("wb") as log:
        # A session of its own: Ctrl-C is for us, and the hub ends before the servers do.
        hub = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        yield hub
    finally:
        hub.terminate()
        try:
            hub.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            hub.kill()  # its workers end with it
            hub.wait()


def _last_words(company: Company) -> str:
    said = (company.directory / "run.log").read_text(errors="replace").splitlines()
    return said[-1] if said else "it said nothing"


def _compared(table: str, rows: tuple[int, int | None]) -> str:
    there, here = rows
    return f"{table}: {there:,} rows in the shop, {'none yet' if here is None else f'{here:,}'} in the ODS"
