"""A summary as people read it: drawn over on a terminal, plain blocks elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.segment import Segment, Segments
from rich.text import Text

from catchment.cli.columns import Column, fitted, spark
from catchment.cli.entry import each_second
from catchment.cli.progress import bars, described, reading
from catchment.hub.summary import Summary, troubles

Gathered = tuple[Summary, Sequence[str | RenderableType]]

_COLOURS = {
    "streaming": "green",
    "refilling": "cyan",
    "retrying": "yellow",
    "stopped": "red",
    "silent": "red",
    "full": "red",
}
_WAL_COLOURS = {"extended": "yellow", "unreserved": "red", "lost": "red"}
_UNITS = ("B", "kB", "MB", "GB", "TB")
_WIDTH = 200  # where no terminal limits it


def show(gather: Callable[[], Gathered], until: float) -> None:
    """Print a summary and what goes below it, once and then every second until the monotonic clock says ``until``.

    A terminal is drawn over, and keeps the last picture; elsewhere plain blocks follow one another, each headed by its
    time when there are to be several.
    """
    watching = until > time.monotonic()
    if not sys.stdout.isatty():
        console = Console(width=_WIDTH, color_system=None, highlight=False)
        each_second(lambda: _print(console, *gather(), watching), until)
        return
    console = Console(highlight=False)
    if not watching:
        console.print(Picture(*gather(), None))
        return
    picture: list[RenderableType] = []
    try:
        with Live(console=console, auto_refresh=False, screen=True) as live:

            def draw() -> None:
                picture[:] = [Picture(*gather(), console.height)]
                live.update(picture[0], refresh=True)

            each_second(draw, until)
    finally:
        if picture:
            console.print(*picture)


def _print(console: Console, summary: Summary, below: Sequence[str | RenderableType], watching: bool) -> None:
    if watching:
        typer.echo(f"--- {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} ---")
    console.print(*_tables(summary, _WIDTH, blocks=False), sep="\n")
    for source, refill in _refills(summary):
        typer.echo(f"{source} {reading(refill)}: {described(refill)}")
    for each in (*sentences(summary), *below):
        if isinstance(each, str):
            typer.echo(each)
        else:
            console.print(each)


class Picture:
    """What a terminal of whatever size shows; ``height`` null where it may scroll."""

    def __init__(self, summary: Summary, below: Sequence[str | RenderableType], height: int | None) -> None:
        self._summary = summary
        self._below = below
        self._height = height
        self._at = datetime.now().astimezone()

    def __rich_console__(self, console: Console, options: object) -> Iterator[RenderableType]:
        summary = self._summary
        below: list[RenderableType] = []
        if refills := _refills(summary):
            below += [Text(), bars(refills)]
        if said := sentences(summary):
            below += [Text(), *map(_coloured, said)]
        if self._below:
            extra: list[RenderableType] = [Text(each) if isinstance(each, str) else each for each in self._below]
            if self._height is not None:
                told = len(console.render_lines(Group(*below))) if below else 0
                room = self._height - told - len(summary["sources"]) - len(summary["targets"]) - 6 - 1
                extra = [_cropped(console, extra, max(0, room))]
            below += [Text(), *extra]
        hidden: list[RenderableType] = []
        if self._height is not None:
            yield Text.assemble((f"{self._at:%H:%M:%S}", "bold"), f"  {_census(summary)}")
            yield Text()
            lines = len(console.render_lines(Group(*below))) if below else 0
            summary, hidden = _fitting(summary, self._height - lines - 6)
        sources, targets = _tables(summary, console.width, blocks=True)
        yield sources
        yield Text()
        yield targets
        yield from hidden
        yield from below


def _cropped(console: Console, below: Sequence[RenderableType], rows: int) -> RenderableType:
    """The first rows of it: what goes below never hides a source."""
    lines = console.render_lines(Group(*below), pad=False)
    return Segments([segment for line in lines[:rows] for segment in (*line, Segment.line())])


def _fitting(summary: Summary, rows: int) -> tuple[Summary, list[RenderableType]]:
    """What fits into so many rows, those that need attention before all others."""
    sources, targets = summary["sources"], summary["targets"]
    if len(sources) + len(targets) <= rows:
        return summary, []
    most = max(1, (rows - 1) // 2)
    room = max(most, rows - 1 - len(targets)), max(most, rows - 1 - len(sources))
    kept = _foremost(sources, room[0]), _foremost(targets, room[1])
    left_out = len(sources) + len(targets) - len(kept[0]) - len(kept[1])
    return {**summary, "sources": kept[0], "targets": kept[1]}, [Text(f"and {left_out} more that do better", "dim")]


def _foremost(entries: Sequence[Summary], count: int) -> list[Summary]:
    worst = sorted(entries, key=lambda entry: (entry["state"] == "streaming", -(entry["lag_seconds"] or 0)))[:count]
    return [entry for entry in entries if any(entry is each for each in worst)]


def _census(summary: Summary) -> str:
    states = [source["state"] for source in summary["sources"]]
    count = "1 source" if len(states) == 1 else f"{len(states)} sources"
    return f"{count}: " + ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def _tables(summary: Summary, width: int, *, blocks: bool) -> list[RenderableType]:
    """One for the sources, one for the targets, as wide as there is space; ``blocks``: with sparklines."""
    sources, targets = summary["sources"], summary["targets"]
    slots = [source["slot"] or {} for source in sources]
    return [
        fitted(
            [
                Column("SOURCE", [source["name"] for source in sources]),
                Column("STATE", [_state(source["state"]) for source in sources]),
                Column("POSITION", [source["position"] or "" for source in sources], rank=7),
                Column("LAG", [_bytes(source["lag_bytes"]) for source in sources], rank=6, right=True),
                Column("BEHIND", [_seconds(source["lag_seconds"]) for source in sources], right=True),
                *(_history(sources) if blocks else ()),
                Column("ROWS/S", [_count(source["rows_per_second"]) for source in sources], rank=1, right=True),
                Column("SLOT", [_slot(slot) for slot in slots], rank=4),
                Column("WAL KEPT", [_bytes(slot.get("retained_bytes")) for slot in slots], rank=2, right=True),
            ],
            width,
        ),
        fitted(
            [
                Column("TARGET", [target["name"] for target in targets]),
                Column("SOURCE", [target["source"] for target in targets]),
                Column("STATE", [_state(target["state"]) for target in targets]),
                Column("FRONTIER", [target["frontier"] or "" for target in targets], rank=7),
                Column("LAG", [_bytes(target["lag_bytes"]) for target in targets], rank=6, right=True),
                Column("BEHIND", [_seconds(target["lag_seconds"]) for target in targets], right=True),
                *(_history(targets) if blocks else ()),
            ],
            width,
        ),
    ]


def _history(entries: Sequence[Summary]) -> Iterator[Column]:
    """How far behind they were in the last minutes."""
    histories: list[list[float | None]] = [entry["lag_history"] for entry in entries]
    if not any(histories):
        return
    peaks = [max((lag for lag in history if lag is not None), default=None) for history in histories]
    yield Column("LAST 10 MIN", rank=3, fill=lambda width: [spark(history, width) for history in histories], most=60)
    yield Column("PEAK", [_seconds(peak) for peak in peaks], rank=5, right=True)


def sentences(summary: Summary) -> list[str]:
    """What is wrong and what to do about it, each said once."""
    if not summary["running"]:
        full = [f"full: {summary['remedy']}"] if summary["remedy"] else []
        return [*full, "no hub runs here: start it with `catchment run`"]
    return list(troubles(summary))


def _refills(summary: Summary) -> list[tuple[str, Summary]]:
    return [(source["name"], refill) for source in summary["sources"] for refill in source["refills"]]


def _coloured(sentence: str) -> Text:
    state, colon, rest = sentence.partition(": ")
    return Text.assemble((state, _COLOURS.get(state, "")), colon, rest)


def _state(state: str) -> Text:
    return Text(state, _COLOURS.get(state, "dim"))


def _slot(slot: Summary) -> Text:
    if not slot:
        return Text()
    active, status = "active" if slot["active"] else "inactive", slot["wal_status"]
    return Text(active if status in (None, "reserved") else f"{active}, {status}", _WAL_COLOURS.get(status, ""))


def _count(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


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
