"""What stays of the lake and what goes when its records grow old."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from lake_source import LakeSource, rows
from ods_batches import table

from catchment.lake import open as open_lake
from catchment.model.errors import TargetRefused, TargetUnreachable
from catchment.model.lsn import Lsn
from catchment.targets.lake import checkpoint, folding
from catchment.targets.lake.delta import read_snapshot
from catchment.targets.lake.local import LocalStore
from catchment.targets.lake.naming import stamped
from catchment.targets.lake.record import Records, following

ACCOUNTS = table("accounts", "id int4", "name text")
EIGHT_DAYS = 8 * 86_400


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LakeSource:
    monkeypatch.setattr(os, "fsync", os.fstat)
    monkeypatch.setattr(folding, "_FILES", 2)
    monkeypatch.setattr(checkpoint, "_EVERY", 4)
    return LakeSource(tmp_path)


def age(*paths: Path) -> None:
    at = time.time() - EIGHT_DAYS
    for path in paths:
        os.utime(path, (at, at))


def seen(source: LakeSource) -> dict[int, Any]:
    """Of each kept record, by its number, what readers see who go through it."""
    records = Records(LocalStore(source.root / "lake"), "orders")
    found = {}
    for number in records.numbers():
        record = records.read(number)
        assert record is not None
        (entry,) = record.entries.values()
        place = source.root / "lake" / entry.path
        found[number] = (
            rows(place, entry.version) if entry.version is not None else None,
            rows(Path(f"{place}.history"), entry.history) if entry.history is not None else None,
        )
    return found


def needed(root: Path, path: str, since: int) -> set[str]:
    """The files of all versions from this one on."""
    store, files = LocalStore(root), set()
    newest = read_snapshot(store, path)
    assert newest is not None
    for version in range(since, newest.version + 1):
        snapshot = read_snapshot(store, path, version)
        assert snapshot is not None
        for file in snapshot.files.values():
            files |= {file.path} | ({file.deleted.path} if file.deleted else set())
    return files


def files(directory: Path) -> set[str]:
    kinds = (".parquet", ".bin")
    found = (path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.name.endswith(kinds))
    return {path for path in found if not path.startswith("_delta_log/")}


def test_promise_1_what_a_kept_record_names_stays_and_what_none_names_goes(source: LakeSource) -> None:
    lake = source.root / "lake"
    place, history = lake / "orders" / "public.accounts", lake / "orders" / "public.accounts.history"
    source.load(ACCOUNTS, *((str(number), "x") for number in range(8)))
    for number in range(24):
        source.change(ACCOUNTS, ("u", str(number % 8), f"{number}"), ("c", str(100 + number), "y"))
        source.target.tend("orders", 60)
        if number == 11:
            source.begin("r2", ACCOUNTS, *((str(number), "z") for number in range(8)))
            source.finish("r2")
    everything = seen(source)
    all_files = files(place)

    records = sorted((lake / "_frontier" / "orders").iterdir())
    age(*records[:20])
    ahead, old_number = stamped(10**6), stamped(3)
    orphans = [place / f"part-{ahead}.parquet", place / f"deletion_vector_{stamped(10**6)}.bin"]
    orphans += [place / "_delta_log" / ".7.json.0", lake / "_frontier" / "orders" / ".7.json.0"]
    left_refill = place / f"refill-{old_number}" / "_delta_log" / "0.json"
    left_refill.parent.mkdir(parents=True)
    fresh = place / f"part-{stamped(10**6)}.parquet"
    strange = [place / "README", place / f"part-{uuid4()}.parquet"]
    for path in (*orphans, left_refill, fresh, *strange):
        path.write_text("")
    age(*orphans, *strange)

    source.again()
    source.target.tend("orders", 0.0)
    assert all(path.exists() for path in orphans)
    source.target.tend("orders", 60)

    kept = seen(source)
    assert kept == {number: what for number, what in everything.items() if number >= 19}
    assert not any(path.exists() for path in (*orphans, left_refill.parent.parent))
    assert all(path.exists() for path in (fresh, *strange))
    for directory, extra in ((place, {fresh.name, strange[1].name}), (history, set[str]())):
        path = directory.relative_to(lake).as_posix()
        record = Records(LocalStore(lake), "orders").read(19)
        assert record is not None
        (entry,) = record.entries.values()
        since = entry.version if directory == place else entry.history
        assert since is not None
        assert files(directory) - extra == needed(lake, path, since)
        logs = sorted((directory / "_delta_log").glob("0*"))
        assert logs[1].name.endswith(".checkpoint.parquet") or logs[0].name.endswith(".checkpoint.parquet")
    assert len(files(place)) < len(all_files)
    refills = {path.name for path in place.glob("refill-*")}
    assert refills == {name.partition("/")[0] for name in files(place) if name.startswith("refill-")}

    with pytest.raises(TargetRefused, match="nothing of it at that place"):
        open_lake(str(lake)).at("orders", lsn=Lsn(200))
    source.change(ACCOUNTS, ("c", "999", "z"))
    assert "(999, 'z')" in rows(place)


def test_promise_1_who_comes_too_late_does_not_write_a_record_whose_number_vacuum_has_made_free(
    source: LakeSource,
) -> None:
    source.load(ACCOUNTS, ("1", "x"))
    records = Records(LocalStore(source.root / "lake"), "orders")
    known = records.latest()
    assert known is not None
    for number in range(3):
        source.change(ACCOUNTS, ("u", "1", f"{number}"))
    age(*(source.root / "lake" / records.path(number) for number in records.numbers()))
    source.again()
    source.target.tend("orders", 60)
    last = records.latest()
    assert last is not None
    assert records.numbers() == [last.number]
    with pytest.raises(TargetUnreachable, match="written by somebody else"):
        records.write(following(known, known.frontier, known.seq, known.entries))
    assert records.numbers() == [last.number]
    assert records.latest(known) == last
