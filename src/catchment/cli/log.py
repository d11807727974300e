"""``catchment log``: look into a source's change log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from catchment.cli.entry import DEFAULT_CONFIG, Config
from catchment.config import load

if TYPE_CHECKING:
    from catchment.model.batch import Batch, Event

app = typer.Typer(help="A source's change log.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The source.")]

_MOST_BYTES = 16 * 2**20
_ROUND_SECONDS = 1.0


@app.command("show")
def show(
    name: Name,
    after: Annotated[
        int | None, typer.Option("--after", metavar="OFFSET", min=0, help="Default: all that is kept.")
    ] = None,
    table: Annotated[str | None, typer.Option("--table", metavar="TABLE", help="This schema.table only.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Print changes as JSON lines, in order; on stderr, which offsets they are from.

    Example: catchment log show orders --table public.customers
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
        while (
            span := log.wait(source, position, _ROUND_SECONDS if follow else 0, _MOST_BYTES)
        ).last > position or follow:
            for _, batch in log.read(source, position, span.last):
                rows = [rows for rows in batch.rows if table in (None, str(rows.table))]
                typer.echo(render(source, rows, list(_told(batch, table))), nl=False)
            position = span.last


def _told(batch: Batch, table: str | None) -> Iterator[Event]:
    """The events, those alone that name the table when there is one."""
    for event in batch.events:
        tables: Sequence[object] = getattr(event, "tables", None) or [getattr(event, "table", None)]
        if table is None or table in map(str, tables):
            yield event


@app.command("trim")
def trim(
    name: Name,
    through: Annotated[int, typer.Option("--through", metavar="OFFSET", min=0, help="The last one to forget.")],
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Forget changes up to an offset, as far as whole files allow; a target that lacks them is refilled.

    Example: catchment log trim orders --through 20000
    """
    from catchment.assembly import build_log

    settings = load(config)
    with closing(build_log(settings)) as log:
        first = log.trim(settings.one(name).name, through)
    typer.echo(f"the first offset kept is {first}")
