"""What a lake holds after its writer was killed at any operation on a file: commit, folding, checkpoint, vacuum."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from lake_source import a_life
from memory_store import Fate, Files, Killed, MemoryStore

from catchment.model.batch import Batch
from catchment.model.frontier import Frontier
from catchment.targets.lake import checkpoint, datafile, deleted, folding, vacuum
from catchment.targets.lake.delta import read_snapshot
from catchment.targets.lake.lake import SourceLake
from catchment.targets.lake.naming import history_path
from catchment.targets.lake.record import Records
from catchment.targets.lake.store import Store
from catchment.targets.lake.transaction import Transaction
from catchment.targets.lake.vectors import Vectors

STRIDE = 11
"""Of all operations, each whole or torn, as many are passed over each time; 1 takes minutes."""
Contents = dict[str, list[str]]
"""Of each table and history that a record names, the rows."""


@pytest.fixture(autouse=True)
def upkeep_at_every_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """What usually comes after many commits, and after days, comes after a few."""
    monkeypatch.setattr(folding, "_FILES", 2)
    monkeypatch.setattr(checkpoint, "_EVERY", 2)
    monkeypatch.setattr(vacuum, "_GRACE", timedelta(0))


class Disk:
    """The lake and its cache."""

    def __init__(self, lake: Files | None = None, cache: Files | None = None) -> None:
        self.lake: Files = {} if lake is None else lake
        self.cache: Files = {} if cache is None else cache

    def copy(self) -> Disk:
        return Disk(dict(self.lake), dict(self.cache))

    def opened(self, fate: Fate | None = None, keep: timedelta = timedelta(minutes=30)) -> SourceLake:
        fate = fate or Fate()
        return SourceLake(MemoryStore(self.lake, fate), MemoryStore(self.cache, fate), "orders", {}, keep)

    def kept(self) -> dict[int, Contents]:
        """What is seen at each kept record, by its offset."""
        store = MemoryStore(self.lake, Fate())
        records = Records(store, "orders")
        found = {}
        for number in records.numbers():
            record = records.read(number)
            assert record is not None
            assert record.frontier is not None
            contents = {}
            for entry in record.entries.values():
                if entry.version is not None:
                    contents[entry.path] = sorted(rows_at(store, entry.path, entry.version))
                if entry.shadow is not None and entry.shadow_version is not None:
                    contents[f"{entry.name} shadow"] = sorted(rows_at(store, entry.shadow, entry.shadow_version))
                if entry.history is not None:
                    contents[history_path(entry.path)] = sorted(rows_at(store, history_path(entry.path), entry.history))
            found[record.frontier.offset] = contents
        return found


def rows_at(store: Store, path: str, version: int) -> Iterator[str]:
    snapshot = read_snapshot(store, path, version)
    assert snapshot is not None
    assert snapshot.version == version
    vectors = Vectors(store, path)
    for file in snapshot.files.values():
        rows = datafile.read(store, f"{path}/{file.path}")
        kept = rows.filter(pa.array(deleted.kept(vectors.of(file), file.rows)))
        for row in kept.to_pylist():
            yield json.dumps({name: str(value) for name, value in row.items() if value is not None}, sort_keys=True)


def deliver(lake: SourceLake, transaction: Iterable[tuple[Frontier, Batch]]) -> None:
    taken = Transaction(lake, "orders")
    for frontier, batch in transaction:
        taken.take(frontier, batch)
    taken.commit()
    lake.tend(3600)


def test_promise_1_every_kept_record_reads_whatever_operation_on_a_file_was_the_last_one(tmp_path: Path) -> None:
    life = a_life(tmp_path)
    undisturbed = Disk()
    for transaction in life:
        deliver(undisturbed.opened(keep=timedelta(days=1)), transaction)
    expected = undisturbed.kept()
    assert len(expected) == len(life)

    begin = random.randrange(STRIDE)
    print("begin", begin)
    before = Disk()
    for transaction in life:
        after, fate = before.copy(), Fate()
        deliver(after.opened(fate), transaction)
        deaths = [(fatal, torn) for fatal in range(1, fate.count + 1) for torn in (False, True)]
        for fatal, torn in deaths[begin::STRIDE]:
            disk = before.copy()
            with pytest.raises(Killed):
                deliver(disk.opened(Fate(fatal, torn)), transaction)
            assert disk.kept().items() <= expected.items()
            deliver(disk.opened(), transaction)
            again = disk.kept()
            assert again.items() <= expected.items()
            assert max(again) == transaction[-1][0].offset
        before = after
    assert list(before.kept()) == list(expected)[-2:]
    left, all_ = ({path for path in disk.lake if path.endswith((".parquet", ".bin"))} for disk in (before, undisturbed))
    assert len(left) < len(all_) / 2
