"""Asking the running hub for something."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import typer

from catchment.cli.entry import FAILED
from catchment.config import Settings
from catchment.hub.base import Hub
from catchment.hub.lock import held
from catchment.hub.sqlite import SqliteHub
from catchment.model.errors import HubDown, HubError

_ROUND_SECONDS = 0.1


@contextmanager
def running_hub(settings: Settings) -> Iterator[Hub]:
    """The hub that runs with these settings. Raises HubDown when there is none."""
    if not held(settings.hub.state):
        raise HubDown(f"no hub runs on {settings.hub.state}")
    with closing(SqliteHub(settings.hub.database)) as hub:
        yield hub


def ask(hub: Hub, kind: str, source: str, arguments: Mapping[str, Any]) -> int:
    """Ask as whoever is logged in; returns the request's id."""
    by = os.environ.get("LOGNAME") or os.environ.get("USER") or f"user {os.getuid()}"
    return hub.request(kind, source, arguments, by)


def conclude(settings: Settings, hub: Hub, request: int, patience: float | None = None) -> None:
    """Wait for the end of a request and print its outcome; one that was refused ends the command with status 1.

    Raises HubDown when the hub ends before, HubError after ``patience`` seconds.
    """
    began = time.monotonic()
    while (found := hub.find(request)).outcome is None:
        if not held(settings.hub.state):
            raise HubDown(
                f"the hub ended before request {request} was done",
                source=found.source,
                remedy="the next `catchment run` goes on with it",
            )
        if patience is not None and time.monotonic() - began > patience:
            raise HubError(
                f"request {request} is not done after {patience:.0f} s",
                source=found.source,
                remedy="it stays asked for: `catchment status` shows what its loops are doing",
            )
        time.sleep(_ROUND_SECONDS)
    refused = found.outcome.startswith("refused")
    typer.echo(f"error: {found.outcome}" if refused else found.outcome, err=refused)
    if refused:
        raise typer.Exit(FAILED)
