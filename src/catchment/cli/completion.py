"""What the shell offers at TAB: names from catchment.toml, tables from what the hub last said."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import typer

from catchment.config import Settings, load
from catchment.hub.sqlite import SqliteHub
from catchment.model.errors import CatchmentError


def source_names(context: typer.Context, incomplete: str) -> list[str]:
    """The sources whose names begin so; none when catchment.toml cannot be read."""
    settings = _settings(context)
    return _beginning(incomplete, [source.name for source in settings.source] if settings else [])


def table_names(context: typer.Context, incomplete: str) -> list[str]:
    """The tables of the source named before, of all while none is, as far as the hub knows them."""
    settings, source = _settings(context), context.params.get("name")
    try:
        if settings is None or not settings.hub.database.exists():
            return []
        with closing(SqliteHub(settings.hub.database)) as hub:
            statuses = [each for each in hub.statuses() if each.target is None and source in (None, each.source)]
    except (CatchmentError, OSError):
        return []
    names = {table["name"]: None for status in statuses for table in status.detail.get("tables", ())}
    return _beginning(incomplete, [*names])


def _beginning(incomplete: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _settings(context: typer.Context) -> Settings | None:
    chosen = context.params.get("config") or context.find_root().params.get("config")
    try:
        return load(Path(str(chosen))) if chosen else None
    except CatchmentError:
        return None
