"""Preflight of the lake: whether it can be written, before something has to be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import uuid4

from catchment.changes.cast import is_numeric
from catchment.model.errors import TargetError
from catchment.model.table import Table
from catchment.postgres.finding import Check, Finding
from catchment.targets.lake.naming import FRONTIERS
from catchment.targets.lake.store import Store

NOT_WRITABLE = Check(
    "lake_place", "error", "it cannot be written: {what}", "nothing can be delivered there", "{remedy}"
)
NO_NUMERIC = Check(
    "lake_column",
    "error",
    "[lake.columns] has {name}, and no numeric column of that name is published",
    "nothing would come of it",
    "correct its name in catchment.toml: source.schema.table.column",
)
WRITABLE = Check("lake_ready", "good", "{place} can be written", "")


def check_lake(store: Store, columns: Iterable[str], tables: Mapping[str, Sequence[Table]]) -> list[Finding]:
    """Write a file where the records are, and remove it; look for columns of a chosen type among the published ones.

    ``tables``: those of each source that was looked at and shares some.
    """
    return [*_columns(columns, tables), *_place(store)]


def _columns(columns: Iterable[str], tables: Mapping[str, Sequence[Table]]) -> list[Finding]:
    known = {
        f"{source}.{table}.{column.name}"
        for source, published in tables.items()
        for table in published
        for column in table.columns
        if is_numeric(column)
    }
    looked_at = [name for name in columns if tables.get(name.partition(".")[0])]
    return [NO_NUMERIC.found("lake", name=name) for name in looked_at if name not in known]


def _place(store: Store) -> list[Finding]:
    path = f"{FRONTIERS}/.check-{uuid4().hex}"
    try:
        store.create(path, b"")
        store.remove(path)
    except TargetError as error:
        return [NOT_WRITABLE.found("lake", what=error.what, remedy=error.remedy)]
    return [WRITABLE.found("lake", place=store.location(""))]
