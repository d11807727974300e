"""``catchment status``: where every source and every target stands."""

from __future__ import annotations

import json
import math
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import Annotated

import typer

from catchment.cli.entry import DEFAULT_CONFIG, Config, each_second, target_names
from catchment.config import Settings, load
from catchment.hub.lock import held
from catchment.hub.space import shortage
from catchment.hub.sqlite import SqliteHub
from catchment.hub.summary import Summary, summarise


def status(
    config: Config = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object a line.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second, until Ctrl-C.")] = False,
) -> None:
    """Show where every source and target stands, and what is stopped and why.

    LAG is how much WAL is missing, BEHIND how old the last transaction is that is there, WAL KEPT what the source's
    server keeps for its slot. Below the tables: backfills under way, and for everything that does not go on what to do
    about it. A narrow terminal leaves columns out; --json has them all.

    Example: catchment status --watch
    """
    settings = load(config)
    until = math.inf if watch else 0.0
    with suppress(KeyboardInterrupt):
        if as_json:
            each_second(lambda: typer.echo(json.dumps(gather(settings))), until)
        else:
            from catchment.cli.screen import show

            show(lambda: (gather(settings), ()), until)


def gather(settings: Settings) -> Summary:
    """All that is known of the hub with these settings, whether it runs or not. Raises HubError."""
    sources = [source.name for source in settings.source]
    running = held(settings.hub.state)  # first: it says who may look at the directory
    if not settings.hub.database.exists():
        return summarise(sources, target_names(settings), (), running, datetime.now(UTC))
    with closing(SqliteHub(settings.hub.database)) as hub:
        statuses = hub.statuses()
    now, space = datetime.now(UTC), shortage(settings.hub.state)
    return summarise(sources, target_names(settings), statuses, running, now, space)
