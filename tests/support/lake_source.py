"""A source's log, delivered to a lake as it is written, and a look into the lake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars
from ods_batches import Source, reshaped, table

from catchment.model.batch import Batch, RefillFinished, RefillStarted, SchemaChanged, Truncated
from catchment.model.frontier import Frontier
from catchment.targets.lake import LakeTarget
from catchment.targets.lake.local import LocalStore

ACCOUNTS = table("accounts", "id int4", "name text", "at timestamptz")
WIDER = reshaped(ACCOUNTS, *ACCOUNTS.columns, "note text")
FACTS = table("facts", "n int4", "v numeric", key=())

Transactions = list[list[tuple[Frontier, Batch]]]

Rows = list[str]
"""Each row with its columns in the order of their names."""


def opened(root: Path, columns: Mapping[str, str] | None = None) -> LakeTarget:
    """A lake with its cache beside it."""
    return LakeTarget(LocalStore(root / "lake"), root / "cache", {"orders": "orders", "stock": "stock"}, columns)


class LakeSource(Source):
    """The batches are those of ``ods_batches``; refills are for the lake."""

    def __init__(self, root: Path, name: str = "orders") -> None:
        super().__init__(opened(root), name)  # type: ignore[arg-type]  # any target will do
        self.root = root

    def again(self, columns: Mapping[str, str] | None = None) -> None:
        """Another process goes on, perhaps with types for some columns."""
        self.target.close()
        self.target = opened(self.root, columns)  # type: ignore[assignment]  # any target will do


def a_life(root: Path) -> Transactions:
    """A first load of two tables, changes of both, a truncation, another shape, a refill, and what comes with them."""
    source = LakeSource(root)
    rows, batch = source.rows, source.batch
    return [
        [
            batch(
                RefillStarted("r1", (ACCOUNTS, FACTS), ("lake",)), rows(ACCOUNTS, [("r", "1", "a", "infinity")], "r1")
            ),
            batch(rows(FACTS, [("r", "1", "1.0"), ("r", "1", "1.0")], "r1"), rows(ACCOUNTS, [("r", "2", "b")], "r1")),
        ],
        [batch(RefillFinished("r1"), rows(ACCOUNTS, [("c", "3", "c"), ("u", "1", "A", ...)]))],
        [
            batch(rows(ACCOUNTS, [("u", "2", "B"), ("d", "3")]), rows(FACTS, [("c", "2", "NaN")]), ends=False),
            batch(rows(FACTS, [("d", "1", "1.0")]), rows(ACCOUNTS, [("b", "2"), ("u", "4", ..., ...)])),
        ],
        [batch(Truncated((FACTS,), source.place()), rows(FACTS, [("c", "5", "5")]))],
        [batch(SchemaChanged(WIDER), rows(WIDER, [("c", "6", "f", None, "new"), ("u", "1", "AA", ..., "too")]))],
        [
            batch(RefillStarted("r2", (WIDER,), ("lake",)), rows(WIDER, [("r", "1", "z", None, "z")], "r2")),
            batch(rows(WIDER, [("c", "7", "g", None, None)])),
            batch(RefillFinished("r2"), rows(WIDER, [("u", "7", "G", None, None)])),
        ],
        [batch()],
    ]


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
