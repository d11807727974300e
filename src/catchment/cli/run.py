"""``catchment run`` and the workers that it starts."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import Annotated

import typer

from catchment.cli.entry import DEFAULT_CONFIG, FAILED, MISUSED, Config, target_names
from catchment.cli.logging import log_to_stderr
from catchment.config import load
from catchment.hub.lock import StateLock
from catchment.hub.space import shortage
from catchment.hub.sqlite import SqliteHub
from catchment.hub.summary import summarise, troubles
from catchment.pipeline.supervisor import MISCONFIGURED, Supervisor, announce, shares
from catchment.wire.choice import chosen


def run(
    config: Config = DEFAULT_CONFIG,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="This source only; may be repeated.")
    ] = None,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End once every target has what the sources have now.")
    ] = False,
) -> None:
    """Collect every change and deliver it to all targets.

    Goes on until Ctrl-C or SIGTERM, which lose nothing, and neither does kill -9: the next run goes on where this one
    ended. With --until-caught-up it ends by itself, with status 1 when something is stopped, or when a server has not
    answered once in its first minute.

    Example: catchment run --only orders --until-caught-up
    """
    settings = load(config)
    chosen()  # else each worker would find out, again and again
    names = [settings.one(name).name for name in dict.fromkeys(only or [source.name for source in settings.source])]
    log_to_stderr()
    with ExitStack() as running:
        running.enter_context(StateLock(settings.hub.state))
        hub = running.enter_context(closing(SqliteHub(settings.hub.database)))
        command = [sys.executable, "-m", "catchment.cli.main", "work", "--config", str(config.resolve())]
        command += ["--until-caught-up"] if until_caught_up else []
        hosted = shares(names, os.cpu_count() or 1)
        commands = {worker: [*command, "--name", worker, *share] for worker, share in hosted.items()}
        supervisor = Supervisor(commands, hub)
        announce(hub, hosted)
        if settings.metrics is not None:
            from catchment.api.observer import Observer
            from catchment.api.server import serving

            observer = Observer(hub, supervisor, names, target_names(settings), settings.hub.state)
            running.enter_context(serving(settings.metrics.address, observer))
        typer.echo(
            f"collecting from {', '.join(names)}; delivering to {', '.join(target_names(settings))}; "
            f"state in {settings.hub.state}"
            + (f"; metrics on http://{settings.metrics.listen}/metrics" if settings.metrics else "")
        )
        ended = supervisor.run(until_caught_up)
        if ended == MISCONFIGURED:
            raise typer.Exit(MISUSED)
        if ended != 0:
            now, space = datetime.now(UTC), shortage(settings.hub.state)
            for sentence in troubles(summarise(names, target_names(settings), hub.statuses(), True, now, space)):
                typer.echo(sentence, err=True)
            raise typer.Exit(FAILED)
        if until_caught_up and not supervisor.told_to_end:
            typer.echo(f"caught up with {', '.join(names)}")


def work(
    sources: Annotated[list[str], typer.Argument()],
    name: Annotated[str, typer.Option("--name")],
    config: Config = DEFAULT_CONFIG,
    until_caught_up: Annotated[bool, typer.Option("--until-caught-up")] = False,
) -> None:
    """Host the loops of these sources, for a supervisor that holds the other end of standard input."""
    from catchment.assembly import build_worker

    log_to_stderr()
    raise typer.Exit(build_worker(load(config), name, sources).run(until_caught_up))
