"""``catchment source``: a source's beginning and end."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from catchment.cli.entry import DEFAULT_CONFIG, Commands, Config, Source
from catchment.cli.requests import Asked, conclude, running_hub, source_entry
from catchment.config import Settings, load
from catchment.hub.base import DROPPED
from catchment.hub.lock import StateLock, held
from catchment.model.errors import HubError

_HELP = """A source's beginning and end.

Example: catchment source sql orders
"""

app = typer.Typer(cls=Commands, help=_HELP, no_args_is_help=True)

_DROP_SECONDS = 60.0


@app.command("sql")
def print_sql(
    name: Source,
    role: Annotated[
        str | None, typer.Option("--role", metavar="ROLE", help="Default: the user that the dsn names, else catchment.")
    ] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Print the SQL that the owning team runs once: role, grants and publication.

    Nothing is connected to and nothing is changed. The publication is the team's data contract: it says which tables,
    columns and rows are shared, and stays theirs.

    Example: catchment source sql orders | psql -d orders
    """
    from catchment.cli.invitation import invitation
    from catchment.postgres.connection import read_dsn

    settings = load(config).one(name)
    given = read_dsn(settings.dsn)
    typer.echo(invitation(settings.name, role or given.get("user", "catchment"), settings.publication), nl=False)


@app.command("drop")
def drop(
    name: Source,
    purge: Annotated[bool, typer.Option("--purge", help="Also remove what the targets built from it.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Remove a source's replication slot and log.

    From then on its server keeps no WAL for us. What targets have of it stays, unless --purge is given. A running hub
    does it, else this command itself. Ctrl-C takes back what has not begun yet.

    Example: catchment source drop orders --purge
    """
    from catchment.pipeline.worker import DROP

    settings = load(config)
    source = settings.one(name).name
    if held(settings.hub.state):
        with running_hub(settings) as hub:
            if not purge and source_entry(settings, hub, source)["state"] == DROPPED:
                raise HubError("it was dropped already", source=source, remedy="take it out of catchment.toml")
            asked = Asked(settings, hub, DROP, source, {"purge": purge})
            conclude(asked.outcome(by_stream=False, patience=_DROP_SECONDS))
    else:
        typer.echo(_drop_here(settings, source, purge))
    typer.echo(f"take it out of catchment.toml as well, or the next `catchment run` begins anew with {source}")


def _drop_here(settings: Settings, name: str, purge: bool) -> str:
    from catchment.assembly import build_log, build_source, build_targets
    from catchment.pipeline.drop import drop_source

    with StateLock(settings.hub.state), closing(build_log(settings)) as log:
        targets = build_targets(settings) if purge else []
        try:
            return drop_source(build_source(settings.one(name)), log, targets)
        finally:
            for target in targets:
                target.close()
