"""What ``verify`` found, as people read it, and how far it is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Self

import typer
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from catchment.pipeline.verify import TableReport
from catchment.pipeline.verify_verdict import Difference

_SHOWN = 20
_BAR_WIDTH = 20
_KINDS = {"missing": "missing", "extra": "extra", "differs": "different"}
_WAITING = (
    "may only wait for changes that were not delivered yet: verify again when the hub runs and "
    "`catchment status` shows no lag"
)
_CALLED = {"ods": "ODS", "lake": "lake"}
_STYLES = {"equal": "green", "different": "bold red", "unverified": "yellow"}


class Verdicts:
    """Prints a table as soon as it has been compared; on a terminal, a bar below for the one under way.

    ``quiet``: the bar alone.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._out = Console(highlight=False, soft_wrap=True)
        terminal = Console(stderr=True, highlight=False)
        self._live = Live(console=terminal, transient=True, redirect_stdout=False) if terminal.is_terminal else None
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        if self._live:
            self._opened.enter_context(self._live)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def progress(self, table: str, rows: int, of: int | None) -> None:
        """So many rows of this table have been compared, of about so many."""
        if self._live:
            grid = Table.grid(padding=(0, 2, 0, 0))
            total = max(of, rows) if of else None
            bar = ProgressBar(total=total, completed=rows, width=_BAR_WIDTH, pulse=total is None)
            grid.add_row(Text(table), bar, f"{rows:,} of about {total:,} rows" if total else f"{rows:,} rows")
            self._live.update(grid)

    def report(self, report: TableReport) -> None:
        """What has come out for a table."""
        if self._quiet:
            return
        self._out.print(
            Text.assemble(
                (f"{report.state:<12}", _STYLES[report.state]),
                f"{report.table} in the {_CALLED[report.target]}: {_said(report)}",
            )
        )
        for difference in report.differences[:_SHOWN]:
            self._out.print(Text(f"{'':<12}{_described(report.key, difference)}"))
        if (more := len(report.differences) - _SHOWN) > 0:
            self._out.print(Text(f"{'':<12}and {more:,} more; --json has them all"))

    def line(self, sentence: str) -> None:
        """Say what has been done."""
        if not self._quiet:
            self._out.print(Text(sentence))

    def summary(self, reports: Sequence[TableReport]) -> None:
        """How many tables are what, in each target."""
        for target in dict.fromkeys(report.target for report in reports):
            counted = Counter[str](report.state for report in reports if report.target == target)
            parts = ", ".join(f"{counted[state]} {state}" for state in _STYLES if counted[state])
            typer.echo(f"{_plural(counted.total(), 'table')} in the {_CALLED[target]}: {parts}")
        if not reports:
            typer.echo("no table is published")


def _said(report: TableReport) -> str:
    """``100 rows, at 0/16B3748`` or what is wrong with them."""
    parts = []
    if report.missing or report.extra:
        parts.append(f"at least {report.missing:,} missing and {report.extra:,} extra")
    elif report.differences:
        kinds = Counter(difference.kind for difference in report.differences)
        parts.append(", ".join(f"{count:,} {_KINDS[kind]}" for kind, count in kinds.items()))
    if report.waiting:
        parts.append(f"{_plural(report.waiting, 'row')} {_WAITING}")
    if report.reason:
        parts.append(report.reason)
    if report.position is not None:
        parts.append(f"{_plural(report.rows, 'row')} compared, at {report.position}")
    return "; ".join(parts)


def _described(key: Sequence[str], difference: Difference) -> str:
    named = zip(key, difference.key, strict=True)
    where = ", ".join(f"{name}={json.dumps(text, ensure_ascii=False)}" for name, text in named)
    columns = f": {', '.join(difference.columns)}" if difference.columns else ""
    return f"{_KINDS[difference.kind]}  {where}{columns}"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
