"""``catchment backfill``: have tables read again."""

from __future__ import annotations

from typing import Annotated

import typer

from catchment.cli.entry import DEFAULT_CONFIG, Config
from catchment.cli.requests import ask, conclude, running_hub
from catchment.config import load


def backfill(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The source.")],
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]...", help="As schema.table; all when none is named.")
    ] = None,
    config: Config = DEFAULT_CONFIG,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Only ask for it.")] = False,
) -> None:
    """Read tables of a source again.

    The running hub does it, for all targets; their readers keep what they see until it is complete.

    Example: catchment backfill orders public.customers
    """
    from catchment.pipeline.session import REFILL

    settings = load(config)
    source = settings.one(name).name
    with running_hub(settings) as hub:
        request = ask(hub, REFILL, source, {"tables": tables or None, "targets": None, "after": None})
        if no_wait:
            typer.echo(f"asked for: request {request}")
        else:
            conclude(settings, hub, request)
