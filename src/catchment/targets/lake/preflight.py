"""Preflight of the lake: whether it can be written, before something has to be."""

from __future__ import annotations

from uuid import uuid4

from catchment.model.errors import TargetError
from catchment.postgres.finding import Check, Finding
from catchment.targets.lake.naming import FRONTIERS
from catchment.targets.lake.store import Store

NOT_WRITABLE = Check(
    "lake_place", "error", "it cannot be written: {what}", "nothing can be delivered there", "{remedy}"
)
WRITABLE = Check("lake_ready", "good", "{place} can be written", "")


def check_lake(store: Store) -> list[Finding]:
    """Write a file where the records are, and remove it."""
    path = f"{FRONTIERS}/.check-{uuid4().hex}"
    try:
        store.create(path, b"")
        store.remove(path)
    except TargetError as error:
        return [NOT_WRITABLE.found("lake", what=error.what, remedy=error.remedy)]
    return [WRITABLE.found("lake", place=store.location(""))]
