"""Removing a source."""

from __future__ import annotations

from collections.abc import Sequence

from catchment.log.base import Log
from catchment.postgres.connection import connect, of_source
from catchment.postgres.slot import drop_slot
from catchment.postgres.source import Source
from catchment.targets.base import Target


def drop_source(source: Source, log: Log, purge: Sequence[Target]) -> str:
    """Remove the slot, then the log, then what these targets built from it; returns what was done.

    The slot goes first: nothing else hurts the source if the rest fails. Raises what each of them raises.
    """
    translation = of_source(source.name)
    with connect(source.dsn, translation) as connection:
        existed = drop_slot(connection, source.slot, translation)
    log.remove(source.name)
    for target in purge:
        target.forget(source.name)
    done = [f"slot {source.slot} dropped" if existed else f"slot {source.slot} was not there", "log removed"]
    done += [f"removed from {target.name}" for target in purge]
    return ", ".join(done)
