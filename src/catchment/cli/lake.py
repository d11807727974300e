"""``catchment lake``: what the lake has."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from catchment.cli.entry import DEFAULT_CONFIG, Commands, Config, Source
from catchment.config import load
from catchment.model.errors import ConfigError
from catchment.model.lsn import Lsn

_HELP = """The lake.

Example: catchment lake show orders
"""

app = typer.Typer(cls=Commands, help=_HELP, no_args_is_help=True)


@app.command("show")
def show(
    name: Source,
    lsn: Annotated[str | None, typer.Option("--lsn", metavar="LSN", help="Not behind this WAL position.")] = None,
    time: Annotated[
        datetime | None, typer.Option("--time", metavar="TIME", help="Not behind this commit time, in UTC.")
    ] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Print the versions of a source's tables that belong together, as JSON lines.

    Without --lsn or --time the last ones. Read each Delta table at the version given, and they agree with each other.

    Example: catchment lake show orders
    """
    from catchment.lake import open as open_lake

    settings = load(config)
    source = settings.one(name)
    if settings.lake is None:
        raise ConfigError("there is no lake", remedy="add [lake] with a uri")
    lake = open_lake(settings.lake.uri, settings.lake.options)
    view = lake.at(source.name, _position(lsn), time.replace(tzinfo=UTC) if time else None)
    place = {
        "source": source.name,
        "lsn": str(view.frontier.lsn),
        "committed_at": view.frontier.committed_at.isoformat(),
    }
    for kind, tables in (("current", view.tables), ("history", view.histories)):
        for table in tables.values():
            told = {**place, "table": table.name, "kind": kind, "uri": table.uri, "version": table.version}
            typer.echo(json.dumps(told))


def _position(lsn: str | None) -> Lsn | None:
    try:
        return Lsn.parse(lsn) if lsn else None
    except ValueError:
        raise typer.BadParameter("not a WAL position, as for instance 0/16B3748") from None
