"""``catchment backfill``: have tables read again."""

from __future__ import annotations

from typing import Annotated

import typer

from catchment.cli.entry import DEFAULT_CONFIG, Config, Source, Tables
from catchment.cli.requests import Asked, ask, conclude, running_hub
from catchment.config import load


def backfill(
    name: Source,
    tables: Tables = None,
    config: Config = DEFAULT_CONFIG,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Only ask for it.")] = False,
) -> None:
    """Have the running hub read tables of a source again.

    All targets get them; their readers keep what they see until it is complete, and the stream goes on meanwhile.
    It is what brings back a table or a target that went wrong, and, without tables, a source whose slot is lost.
    Ctrl-C takes back what has not begun yet; what has begun goes on.

    Example: catchment backfill orders public.customers
    """
    from catchment.cli.progress import Progress
    from catchment.pipeline.session import REFILL

    settings = load(config)
    source = settings.one(name).name
    arguments = {"tables": tables or None, "targets": None, "after": None}
    with running_hub(settings) as hub:
        if no_wait:
            typer.echo(f"asked for: request {ask(hub, REFILL, source, arguments)}")
            return
        with Progress() as progress:
            asked = Asked(settings, hub, REFILL, source, arguments, progress.say)
            outcome = asked.outcome(by_stream=True, watch=progress.show)
    conclude(outcome)
