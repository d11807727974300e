"""``catchment log``: look into a source's change log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from catchment.cli.completion import table_names
from catchment.cli.entry import DEFAULT_CONFIG, Commands, Config, Source
from catchment.config import load
from catchment.model.errors import LogError

if TYPE_CHECKING:
    from catchment.log.base import Log
    from catchment.model.batch import Batch, Event

_HELP = """A source's change log.

Example: catchment log show orders --follow
"""

app = typer.Typer(cls=Commands, help=_HELP, no_args_is_help=True)

_MOST_BYTES = 16 * 2**20
_ROUND_SECONDS = 1.0


@app.command("show")
def show(
    name: Source,
    after: Annotated[
        int | None, typer.Option("--after", metavar="OFFSET", min=0, help="Default: all that is kept.")
    ] = None,
    table: Annotated[
        str | None,
        typer.Option("--table", metavar="TABLE", help="This schema.table only.", autocompletion=table_names),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Print changes as JSON lines, in order; on stderr, which offsets they are from.

    The hub need not run. Rows are printed as they are: mind who reads them.

    Example: catchment log show orders --table public.customers --follow
    """
    from catchment.assembly import build_log
    from catchment.changes.jsonlines import render

    settings = load(config)
    source = settings.one(name).name
    with closing(build_log(settings)) as log:
        whole = log.wait(source, after or 0, 0)
        position = whole.first - 1 if after is None else after
        if whole.last > position >= whole.first - 1:
            typer.echo(f"offsets {position + 1} to {whole.last}", err=True)
        elif whole.last <= position:
            typer.echo(f"nothing is kept behind offset {position}", err=True)
        looked_for = table
        while (
            span := log.wait(source, position, _ROUND_SECONDS if follow else 0, _MOST_BYTES)
        ).last > position or follow:
            for frontier, batch in log.read(source, position, span.last):
                rows = [rows for rows in batch.rows if table in (None, str(rows.table))]
                events = list(_told(batch, table))
                typer.echo(render(source, rows, events, frontier.log), nl=False)
                if rows or events:
                    looked_for = None
            position = span.last
            if looked_for is not None and position >= whole.last:
                _require(log, source, looked_for)
                looked_for = None
        if looked_for is not None:
            _require(log, source, looked_for)


def _require(log: Log, source: str, table: str) -> None:
    """Say that nothing is kept of a table. Raises LogError when there never was one of this name."""
    from catchment.pipeline.state import KnownTable

    known = sorted(str(each.table) for each in KnownTable.of(log.state(source)).values())
    if table not in known:
        names = f"there are {', '.join(known)}" if known else "it has no tables yet"
        raise LogError(
            f"the log has never seen a table {table}", source=source, remedy=f"{names}; name it schema.table"
        )
    typer.echo(f"no change of {table} is kept there", err=True)


def _told(batch: Batch, table: str | None) -> Iterator[Event]:
    """The events, those alone that name the table when there is one."""
    for event in batch.events:
        tables: Sequence[object] = getattr(event, "tables", None) or [getattr(event, "table", None)]
        if table is None or table in map(str, tables):
            yield event


@app.command("trim")
def trim(
    name: Source,
    through: Annotated[int, typer.Option("--through", metavar="OFFSET", min=0, help="The last one to forget.")],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Forget changes up to an offset, as far as whole files allow.

    The hub trims by itself what all targets have: this is for a disk that is full before its time. A target that lacks
    what is forgotten is refilled; a table of which a backfill has read a part is begun again.

    Example: catchment log trim orders --through 20000
    """
    from catchment.assembly import build_log

    settings = load(config)
    with closing(build_log(settings)) as log:
        source = settings.one(name).name
        log.state(source)  # files are unlinked unread: a log that does not read back must say so
        first = log.trim(source, through)
    typer.echo(f"the first offset kept is {first}")
