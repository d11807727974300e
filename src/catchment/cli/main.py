"""``catchment``: puts the commands together.

The supervisor is one of them and has to stay light: no module that is imported here imports pyarrow, numpy or psycopg.
Commands that need them import them when they run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from catchment.cli import backfill, check, demo, log, run, source, status, version
from catchment.cli.entry import DEFAULT_CONFIG, HELP, Commands

app = typer.Typer(
    name="catchment",
    cls=Commands,
    help="Streams every committed change out of many PostgreSQL databases and recreates it exactly.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # they print the values of local variables
)


@app.callback()
def common(
    config: Annotated[
        Path, typer.Option("--config", metavar="PATH", envvar="CATCHMENT_CONFIG", help=HELP)
    ] = DEFAULT_CONFIG,
    version: Annotated[
        bool, typer.Option("--version", callback=version.show, is_eager=True, help="Print versions and end.")
    ] = False,
) -> None:
    """Streams every committed change out of many PostgreSQL databases and recreates it exactly."""


app.command()(run.run)
app.command(hidden=True)(run.work)
app.command()(status.status)
app.command()(check.check)
app.command()(backfill.backfill)
app.command()(demo.demo)
app.add_typer(source.app, name="source")
app.add_typer(log.app, name="log")

if __name__ == "__main__":
    app()
