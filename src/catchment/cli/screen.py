"""A summary as people read it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from catchment.cli.entry import each_second
from catchment.hub.summary import NOT_RUNNING, Summary

_COLOURS = {"streaming": "green", "refilling": "cyan", "retrying": "yellow", "stopped": "red"}
_UNITS = ("B", "kB", "MB", "GB", "TB")
_WIDTH = 200  # where no terminal limits it


def show(gather: Callable[[], tuple[Summary, Sequence[str]]], until: float) -> None:
    """Print a summary and some lines below it, once and then every second until the monotonic clock says ``until``.

    A terminal is drawn over; elsewhere plain blocks follow one another.
    """
    if not sys.stdout.isatty():
        console = Console(width=_WIDTH, color_system=None, highlight=False)
        each_second(lambda: _print(console, *gather()), until)
        return
    with Live(auto_refresh=False) as live:
        each_second(lambda: live.update(_drawn(*gather()), refresh=True), until)


def _print(console: Console, summary: Summary, lines: Sequence[str]) -> None:
    console.print(*tables(summary), sep="\n")
    for line in (*sentences(summary), *lines):
        typer.echo(line)


def _drawn(summary: Summary, lines: Sequence[str]) -> Group:
    return Group(*tables(summary), *map(Text, (*sentences(summary), *lines)))


def tables(summary: Summary) -> list[Table]:
    """One for the sources, one for the targets."""
    sources = _table("SOURCE", "STATE", "POSITION", ">LAG", ">BEHIND", ">ROWS/S", ">WAL KEPT", "BACKFILL")
    for source in summary["sources"]:
        slot = source["slot"] or {}
        sources.add_row(
            source["name"],
            _state(source["state"]),
            source["position"] or "",
            _bytes(source["lag_bytes"]),
            _seconds(source["lag_seconds"]),
            "" if source["rows_per_second"] is None else f"{source['rows_per_second']:,}",
            _bytes(slot.get("retained_bytes")),
            ", ".join(_backfill(refill) for refill in source["refills"]),
        )
    targets = _table("TARGET", "SOURCE", "STATE", "FRONTIER", ">LAG", ">BEHIND")
    for target in summary["targets"]:
        targets.add_row(
            target["name"],
            target["source"],
            _state(target["state"]),
            target["frontier"] or "",
            _bytes(target["lag_bytes"]),
            _seconds(target["lag_seconds"]),
        )
    return [sources, targets]


def sentences(summary: Summary) -> list[str]:
    """What is wrong and what to do about it, each said once."""
    if all(source["state"] == NOT_RUNNING for source in summary["sources"]):
        return ["no hub runs here: start it with `catchment run`"]
    return list(dict.fromkeys(_troubles(summary)))


def _troubles(summary: Summary) -> Iterator[str]:
    said = set()
    for source in summary["sources"]:
        for table in source["tables"]:
            if table["remedy"]:
                said.add(table["remedy"])
                yield f"{table['state']}: {table['remedy']}"
        if source["remedy"] and source["remedy"] not in said:
            yield f"{source['state']}: {source['remedy']}"
    for target in summary["targets"]:
        if target["remedy"]:
            yield f"{target['state']}: target {target['name']}, {target['remedy']}"


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading.lstrip(">"), justify="right" if heading.startswith(">") else "left", no_wrap=True)
    return table


def _state(state: str) -> Text:
    return Text(state, _COLOURS.get(state, "dim"))


def _backfill(refill: Summary) -> str:
    of = f" of about {refill['of']:,}" if refill["of"] else ""
    return f"{refill['rows']:,}{of} rows, {len(refill['tables'])} tables to go"


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    size, unit = float(count), 0
    while size >= 1000 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 else f"{size:.1f} {_UNITS[unit]}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
