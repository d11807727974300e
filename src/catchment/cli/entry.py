"""How every command begins and ends: which catchment.toml, which error, which exit status."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from catchment.cli.completion import source_names, table_names
from catchment.config import Settings
from catchment.model.errors import CatchmentError, ConfigError

FAILED, MISUSED, INTERRUPTED = 1, 2, 130
"""Exit statuses other than 0: what was asked failed; usage or configuration; Ctrl-C."""

DEFAULT_CONFIG = Path("catchment.toml")

BEGIN, RUN, LOOK = "To begin", "To run", "To look closer"
"""The groups of commands in ``catchment --help``, in this order."""


class Commands(TyperGroup):
    """Ends a command that raised one of our errors with one line on stderr and the exit status for it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _in_one_line():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with _in_one_line():
            return super().invoke(ctx)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Group by group, in the order in which they were added."""
        shown = [(name, self.commands[name]) for name in self.list_commands(ctx) if not self.commands[name].hidden]
        for group in dict.fromkeys(_group(command) for _, command in shown):
            rows = [(name, command.get_short_help_str(200)) for name, command in shown if _group(command) == group]
            with formatter.section(group):
                formatter.write_dl(rows)


@contextmanager
def _in_one_line() -> Iterator[None]:
    try:
        yield
    except CatchmentError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(MISUSED if isinstance(error, ConfigError) else FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _group(command: Any) -> str:
    return getattr(command, "rich_help_panel", None) or "Commands"


def _chosen(context: typer.Context, given: Path) -> Path:
    """What was said before the command, or in the environment, when nothing was said behind it."""
    source = context.get_parameter_source("config")
    if source is not None and source.name != "DEFAULT":
        return given
    before: Path = context.find_root().params["config"]
    return before


HELP = "The file that says what is collected and where it goes."
# Whether it can be read is found out by reading it: click would answer with its usage.
Config = Annotated[Path, typer.Option("--config", metavar="PATH", callback=_chosen, help=HELP, readable=False)]
"""The option that every command has; its default is ``DEFAULT_CONFIG``."""

Source = Annotated[str, typer.Argument(metavar="NAME", help="The source.", autocompletion=source_names)]
"""The argument of every command about one source."""

_ALL = "As schema.table; all when none is named."
Tables = Annotated[list[str] | None, typer.Argument(metavar="TABLE", help=_ALL, autocompletion=table_names)]
"""The argument of every command about some tables of it."""


def target_names(settings: Settings) -> list[str]:
    """All targets, in the order of ``status``."""
    return [
        *(["ods"] if settings.ods else []),
        *(["lake"] if settings.lake else []),
        *(feed.name for feed in settings.feed),
    ]


def each_second(act: Callable[[], None], until: float) -> None:
    """Act now, and then every second until the monotonic clock says ``until``."""
    act()
    while time.monotonic() < until:
        time.sleep(1.0)
        act()
