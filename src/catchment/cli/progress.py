"""How far a backfill is, as people read it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from catchment.hub.summary import Summary

_LINE_SECONDS = 5.0
_BAR_WIDTH = 20


def described(refill: Summary) -> str:
    """``12,000 of about 50,000 rows, 4,000 rows/s, about 10 s left``, as far as it is known; of all its tables."""
    rows, of, rate = refill["rows"], refill["of"], refill["rows_per_second"]
    parts = [f"{rows:,} of about {of:,} rows" if of else f"{rows:,} rows"]
    parts += [f"{rate:,} rows/s"] if rate else []
    parts += [f"about {_duration((of - rows) / rate)} left"] if of and rate and of > rows else []
    return ", ".join(parts)


def reading(refill: Summary) -> str:
    """Which table is being read, the first of those still to be read, and how many come behind it."""
    if not refill["tables"]:
        return "the last rows"
    first, *others = refill["tables"]
    return f"{first} and {len(others)} more" if others else str(first)


def bars(refills: Sequence[tuple[str, Summary]]) -> Table:
    """A bar for each of these backfills, by the names of their sources."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(width=_BAR_WIDTH)
    grid.add_column()
    for source, refill in refills:
        of = refill["of"]
        bar = ProgressBar(total=of, completed=refill["rows"], width=_BAR_WIDTH, pulse=of is None)
        grid.add_row(f"{source} {reading(refill)}", bar, described(refill))
    return grid


class Progress:
    """Shows on stderr how the backfills of a source go: a bar on a terminal, elsewhere a line every few seconds."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False)
        self._console = console
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._told = float("-inf")
        self._last = ""

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, sentence: str) -> None:
        """A whole sentence, above the bar where there is one."""
        self._console.print(Text(sentence), soft_wrap=True)

    def show(self, source: Summary) -> None:
        """How the source stands now, as ``status`` says it."""
        refills = [(source["name"], refill) for refill in source["refills"]]
        if self._live is not None:
            self._live.update(bars(refills) if refills else Text(f"{source['name']} waits for its turn"), refresh=True)
        elif refills and time.monotonic() - self._told >= _LINE_SECONDS:
            line = "; ".join(f"{reading(refill)}: {described(refill)}" for _, refill in refills)
            if line != self._last:
                self.say(line)
                self._told, self._last = time.monotonic(), line


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
