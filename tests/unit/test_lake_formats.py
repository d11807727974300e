"""What the lake's files look like to others, and to us again."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from ods_batches import rows, table

from catchment.changes.cast import typed
from catchment.model.batch import META
from catchment.model.errors import TargetRefused
from catchment.targets.lake import deleted, delta
from catchment.targets.lake.columns import LakeColumn, current_columns, history_columns
from catchment.targets.lake.current import CurrentTable
from catchment.targets.lake.keys import hashes
from catchment.targets.lake.local import LocalStore
from catchment.targets.lake.preflight import check_lake

KEYS = {
    "int4": ("1", "-5", "2147483647"),
    "int8": ("1", "-5", "9223372036854775807"),
    "numeric": ("1.0", "1.00", "NaN"),
    "numeric%655366": ("1.00", "-0.01", "NaN"),
    "float8": ("1", "-0", "0", "NaN", "Infinity", "1e+20"),
    "bool": ("t", "f"),
    "bytea": ("\\x", "\\x00", "\\xdeadbeef"),
    "date": ("2026-11-23", "infinity", "-infinity", "0044-03-15 BC"),
    "timestamptz": ("2026-11-23 12:00:00+00", "2026-11-23 12:00:00.000001+00", "infinity"),
    "uuid": ("00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"),
    "text": ("", "a", "abcdefgh", "abcdefghi", "é" * 40),
    "_int4": ("{1,2}", "{12}", "{{1,2}}", "{}"),
}


@pytest.mark.parametrize("rows", [5, 70_000, 200_000])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 1.0])
def test_a_deletion_vector_reads_back(rows: int, share: float) -> None:
    chosen = np.flatnonzero(np.random.default_rng(rows).random(rows) < share)
    bits = deleted.mark(deleted.none(rows), chosen)
    assert deleted.count(bits) == len(chosen)
    assert np.array_equal(np.flatnonzero(~deleted.kept(bits, rows)), chosen)
    assert np.array_equal(deleted.from_bytes(deleted.to_bytes(bits), rows), bits)


def test_a_deletion_vector_of_runs_as_others_write_them_is_read() -> None:
    # Rows 10 to 19 and 30, as one container of runs.
    runs = np.array([2, 10, 9, 30, 0], "<u2").tobytes()
    bitmap = np.array([12347], "<u4").tobytes() + b"\1" + np.array([0, 10], "<u2").tobytes() + runs
    data = np.array([1681511377], "<u4").tobytes() + np.array([1], "<u8").tobytes() + bytes(4) + bitmap
    kept = deleted.kept(deleted.from_bytes(data, 40), 40)
    assert np.flatnonzero(~kept).tolist() == [*range(10, 20), 30]


def test_a_deletion_vectors_file_is_named_as_the_protocol_says() -> None:
    stored = deleted.Stored("u", "ab^-aqEH.-t@S}K{vb[*k^", 4, 40, 6)
    assert stored.path == "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin"
    path, _, places = deleted.file_of({"a": deleted.none(1)}, UUID("d2c639aa-8816-431a-aaf6-d3fe2512ff61"))
    assert places["a"].path == path == stored.path.removeprefix("ab/")


def test_a_deletion_vector_that_is_damaged_is_refused() -> None:
    _, content, stored = deleted.file_of({"a": deleted.mark(deleted.none(9), np.array([3]))}, UUID(int=1))
    with pytest.raises(TargetRefused, match="does not read back"):
        deleted.read(content[:-5] + b"?" + content[-4:], stored["a"], 9)


def test_names_that_delta_or_spark_cannot_tell_apart_or_refuse_get_others() -> None:
    shape = table("t", "Id int4", "id int4", "a b text", "_exact text", "_op text", "_seq int4", key=())
    assert [column.name for column in current_columns(shape, {})] == ["Id", "id__2", "a_b", "_exact__2", "_op", "_seq"]
    columns = history_columns(shape, [], {})
    assert [column.name for column in columns][-3:] == ["_exact__2", "_op__2", "_seq__2"]


def test_a_history_keeps_a_column_whose_type_changes_and_begins_another() -> None:
    before = history_columns(table("t", "id int4", "n int4"), [], {})
    after = history_columns(table("t", "id int4", "n int8"), before, {})
    assert after == [before[0], LakeColumn("n__2", "n", pa.int64())]
    assert history_columns(table("t", "id int4", "n int4"), [*before, *after[1:]], {}) == before


@pytest.mark.parametrize("kind", KEYS)
def test_promise_1_the_index_made_from_files_is_the_one_made_from_texts(tmp_path: Path, kind: str) -> None:
    shape = table("t", f"id {kind}", "n int4")
    texts = KEYS[kind]
    store = LocalStore(tmp_path)
    target = CurrentTable.create(store, LocalStore(tmp_path / "one"), "t", "orders", shape, {})
    created = rows(shape, [("c", text, "1") for text in texts], None, range(100)).data
    target.apply(shape, [created], {"orders": 1})
    anew = CurrentTable.open(store, LocalStore(tmp_path / "other"), "t", "orders")
    assert anew
    updated = rows(shape, [("u", text, "2") for text in texts], None, range(100)).data
    anew.apply(shape, [updated], {"orders": 2})
    snapshot = delta.read_snapshot(store, "t")
    assert snapshot == anew.snapshot
    assert [file.rows for file in snapshot.files.values()] == [len(texts)]
    found = hashes([typed(created.column(len(META)), pa.string())], (1, 2))
    assert len(np.unique(found[:, 0])) == len(texts)


def test_a_checkpoint_that_delta_rs_writes_stands_for_the_versions_before_it(tmp_path: Path) -> None:
    shape = table("t", "id int4", "at date")
    store = LocalStore(tmp_path)
    target = CurrentTable.create(store, LocalStore(tmp_path / "cache"), "t", "orders", shape, {})
    changes: list[tuple[tuple[str, str, str], ...]] = [
        (("c", "1", "2026-01-01"), ("c", "2", "infinity")),
        (("d", "1", ""),),
    ]
    for offset, each in enumerate(changes):
        target.apply(shape, [rows(shape, each, None, range(9)).data], {"orders": offset})
    DeltaTable(str(tmp_path / "t")).create_checkpoint()
    for version in range(3):
        store.remove(f"t/_delta_log/{version:020}.json")
    assert delta.read_snapshot(store, "t") == target.snapshot


def test_check_says_whether_the_lake_can_be_written(tmp_path: Path) -> None:
    (found,) = check_lake(LocalStore(tmp_path / "lake"), [], {})
    assert (found.level, found.check) == ("good", "lake_ready")
    (tmp_path / "file").write_text("")
    (found,) = check_lake(LocalStore(tmp_path / "file"), [], {})
    assert (found.level, found.check, found.remedy) == ("error", "lake_place", "give [lake] another uri")
    assert [place.name for place in (tmp_path / "lake" / "_frontier").iterdir()] == []


def test_check_finds_columns_of_a_chosen_type_that_nobody_publishes(tmp_path: Path) -> None:
    tables = {"orders": (table("t", "id int4", "n numeric"),), "stock": ()}
    columns = ["orders.public.t.n", "orders.public.t.id", "orders.public.t.gone", "stock.public.t.n"]
    findings = check_lake(LocalStore(tmp_path / "lake"), columns, tables)
    assert [found.what for found in findings if found.check == "lake_column"] == [
        f"[lake.columns] has orders.public.t.{name}, and no numeric column of that name is published"
        for name in ("id", "gone")
    ]
