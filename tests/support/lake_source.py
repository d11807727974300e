"""A source's log, delivered to a lake as it is written, and a look into the lake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars
from ods_batches import Source

from catchment.targets.lake import LakeTarget
from catchment.targets.lake.local import LocalStore

Rows = list[str]
"""Each row with its columns in the order of their names."""


def opened(root: Path) -> LakeTarget:
    """A lake with its cache beside it."""
    return LakeTarget(LocalStore(root / "lake"), root / "cache", {"orders": "orders", "stock": "stock"})


class LakeSource(Source):
    """The batches are those of ``ods_batches``; refills are for the lake."""

    def __init__(self, root: Path, name: str = "orders") -> None:
        super().__init__(opened(root), name)  # type: ignore[arg-type]  # any target will do
        self.root = root

    def again(self) -> None:
        """Another process goes on."""
        self.target.close()
        self.target = opened(self.root)  # type: ignore[assignment]  # any target will do


def record(root: Path, source: str = "orders") -> dict[str, Any]:
    """The last one."""
    files = sorted((root / "lake" / "_frontier" / source).glob("*.json"))
    found: dict[str, Any] = json.loads(files[-1].read_bytes()) if files else {"frontier": None, "tables": []}
    return found


def tables(root: Path, source: str = "orders") -> dict[str, Rows]:
    """What readers see of each table who go through the last record, whatever the order."""
    return {
        f"{entry['schema']}.{entry['name']}": rows(root / "lake" / entry["path"], entry["version"])
        for entry in record(root, source)["tables"]
        if entry["version"] is not None
    }


def rows(table: Path, version: int | None = None) -> Rows:
    """The rows of one version of a Delta table, the last if none is given, as Polars reads them."""
    found = polars.read_delta(str(table), version=version)
    return sorted(map(str, found.select(sorted(found.columns)).rows()))


def history(root: Path, source: str = "orders", table: str = "public.accounts") -> list[dict[str, Any]]:
    """All changes of a table that readers see who go through the last record, in their order."""
    entry = next(each for each in record(root, source)["tables"] if f"{each['schema']}.{each['name']}" == table)
    path = root / "lake" / f"{entry['path']}.history"
    return polars.read_delta(str(path), version=entry["history"]).sort("_seq").to_dicts()
