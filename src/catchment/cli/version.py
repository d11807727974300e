"""``catchment --version``: what this installation is made of."""

from __future__ import annotations

import platform
import sqlite3
from importlib.metadata import version as installed

import typer

from catchment.wire.choice import chosen


def show(wanted: bool) -> None:
    """Print the versions that a report of a defect should name."""
    if not wanted:
        return
    from psycopg import pq

    twin = chosen()
    libpq = pq.version()
    typer.echo(f"catchment {installed('catchment')}")
    typer.echo(f"Python {platform.python_version()} ({platform.python_implementation()}, {platform.platform()})")
    typer.echo(f"pyarrow {installed('pyarrow')}")
    typer.echo(f"psycopg {installed('psycopg')} ({pq.__impl__}, libpq {libpq // 10000}.{libpq % 10000})")
    typer.echo(f"wire {twin}")
    typer.echo(f"SQLite {sqlite3.sqlite_version}")
    raise typer.Exit
