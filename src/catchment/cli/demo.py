"""``catchment demo``: a whole company on this machine."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from catchment.cli.status import gather
from catchment.config import load
from catchment.hub.summary import NOT_RUNNING

if TYPE_CHECKING:
    from catchment.demo.company import Company


def demo(
    rate: Annotated[float, typer.Option("--rate", metavar="N", min=0.01, help="Orders a second.")] = 5.0,
    minutes: Annotated[
        float | None, typer.Option("--minutes", metavar="N", min=0, help="End after so long; default: at Ctrl-C.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Another number, other orders.")] = 1,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Leave data and catchment.toml in this new directory.")
    ] = None,
) -> None:
    """Run a whole company on this machine.

    Three services, each with a PostgreSQL server of its own, an ODS and a hub between them. Orders are placed, paid,
    packed, shipped and delivered, most of them; below the status stands what only the ODS can tell. Ctrl-C ends it,
    and nothing is left behind unless it is to be kept.

    Example: catchment demo --rate 20 --keep /tmp/company
    """
    from catchment.demo.company import Company

    interruption = _Interruption()

    def tell(sentence: str) -> None:
        interruption.heed()
        typer.echo(sentence)

    company = Company(seed, rate, keep, tell)
    try:
        with suppress(KeyboardInterrupt), company, interruption.at_once():
            _watch(company, 60 * (math.inf if minutes is None else minutes))
    finally:
        for line in company.instructions():
            typer.echo(line)


def _watch(company: Company, seconds: float) -> None:
    """Show the hub's status with the answers of the ODS below it.

    Raises HubDown, SourceUnreachable or TargetUnreachable when a part of the company is gone.
    """
    from catchment.cli.screen import Gathered, show
    from catchment.demo.answers import ask, connected
    from catchment.demo.view import drawn

    settings = load(company.config)
    while any(source["state"] == NOT_RUNNING for source in gather(settings)["sources"]):
        company.must_run()
        time.sleep(0.1)
    with connected(company.dsn("ods")) as ods:

        def look() -> Gathered:
            company.must_run()
            return gather(settings), [*drawn(ask(ods)), *company.entrances()]

        show(look, time.monotonic() + seconds)


class _Interruption:
    """Ctrl-C, SIGTERM and a terminal that goes: heeded once, and never while something is half begun or half ended."""

    def __init__(self) -> None:
        self._came = self._at_once = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._come)

    def heed(self) -> None:
        """Raises KeyboardInterrupt when one came."""
        if self._came:
            raise KeyboardInterrupt

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this block it raises KeyboardInterrupt wherever it comes, or came before; the first one only."""
        self._at_once = True
        try:
            self.heed()
            yield
        finally:
            self._at_once = False

    def _come(self, *_: Any) -> None:
        first, self._came = not self._came, True
        if self._at_once and first:
            raise KeyboardInterrupt
