"""``catchment``: puts the commands together.

The supervisor is one of them and has to stay light: no module that is imported here imports pyarrow, numpy or psycopg.
Commands that need them import them when they run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from catchment.cli import backfill, check, demo, init, lake, log, run, source, status, verify, version
from catchment.cli.entry import BEGIN, DEFAULT_CONFIG, HELP, LOOK, RUN, Commands

app = typer.Typer(
    name="catchment",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # they print the values of local variables
)


@app.callback()
def common(
    config: Annotated[
        Path,
        typer.Option(
            "--config", metavar="PATH", envvar="CATCHMENT_CONFIG", show_envvar=True, help=HELP, readable=False
        ),
    ] = DEFAULT_CONFIG,
    version: Annotated[
        bool, typer.Option("--version", callback=version.show, is_eager=True, help="Print versions and end.")
    ] = False,
) -> None:
    """Streams every committed change out of many PostgreSQL databases and recreates it exactly.

    Example: catchment init, then catchment check, then catchment run
    """


app.command(rich_help_panel=BEGIN)(demo.demo)
app.command(rich_help_panel=BEGIN)(init.init)
app.add_typer(source.app, name="source", rich_help_panel=BEGIN)
app.command(rich_help_panel=BEGIN)(check.check)
app.command(rich_help_panel=RUN)(run.run)
app.command(hidden=True)(run.work)
app.command(rich_help_panel=RUN)(status.status)
app.command(rich_help_panel=RUN)(backfill.backfill)
app.command(rich_help_panel=LOOK)(verify.verify)
app.add_typer(log.app, name="log", rich_help_panel=LOOK)
app.add_typer(lake.app, name="lake", rich_help_panel=LOOK)

if __name__ == "__main__":
    app()
