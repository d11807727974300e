"""What every place of a lake's files promises: a local disk, and an object store that is asked over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_server import S3Server

from catchment.model.errors import TargetUnreachable
from catchment.targets.lake.place import open_store
from catchment.targets.lake.store import Store

Open = Callable[[], Store]


@pytest.fixture(params=["local", "s3"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Each call is another process's."""
    if request.param == "local":
        return lambda: open_store(f"file://{tmp_path}/lake", {})
    server: S3Server = request.getfixturevalue("s3_server")
    bucket: str = request.getfixturevalue("s3_bucket")
    return lambda: open_store(f"s3://{bucket}/a/lake", server.options)


def test_files_are_read_as_they_were_written(opened: Open) -> None:
    store = opened()
    # Names as naming.py makes them, and contents on both sides of every limit.
    contents = {
        "t/_day=2026-11-23/part.parquet": b"",
        "t/caf!c3!a9": b"\0\xff" * 5,
        "large": bytes(range(256)) * 40_000,
    }
    store.write({path: pa.py_buffer(content) for path, content in contents.items()})
    assert {path: opened().read(path) for path in contents} == contents
    for path, content in contents.items():
        with opened().open(path) as file:
            assert file.size() == len(content)
            assert file.read() == content
            file.seek(len(content) // 2)
            assert file.read(3) == content[len(content) // 2 :][:3]
    assert store.read("t/none") is None
    with pytest.raises(TargetUnreachable):
        store.open("t/none").close()


def test_a_large_file_is_read_in_parts(opened: Open) -> None:
    store, sink = opened(), pa.BufferOutputStream()
    rows = pa.table({"n": np.arange(1 << 21)})
    pq.write_table(rows, sink, compression="none", use_dictionary=False, row_group_size=1 << 19)
    store.write({"t/part.parquet": sink.getvalue()})
    with store.open("t/part.parquet") as file:
        assert pq.ParquetFile(file).read_row_group(2) == rows.slice(2 << 19, 1 << 19)


def test_what_is_in_a_directory(opened: Open) -> None:
    store, before = opened(), datetime.now(UTC) - timedelta(minutes=1)
    assert store.names("t") == []
    assert store.files("t") == []
    store.write({path: path.encode() for path in ("t/b", "t/a/y", "t/a/x", "t/a.history/z", "tt/c", "top")})
    assert store.names("t") == ["a", "a.history", "b"]
    assert store.names("") == ["t", "top", "tt"]
    found = store.files("t")
    assert [(each.path, each.size) for each in found] == [("a.history/z", 13), ("a/x", 5), ("a/y", 5), ("b", 3)]
    assert all(before < each.modified < before + timedelta(minutes=5) for each in found)
    assert [each.path for each in store.files("")] == [*(f"t/{each.path}" for each in found), "top", "tt/c"]


def test_files_and_whole_directories_are_removed(opened: Open) -> None:
    store = opened()
    store.write(dict.fromkeys(("t/b", "t/c", "t/a/y", "t/a/deep/x", "t/a.history/z", "u/w"), b""))
    store.remove("t/a", "t/c", "t/none", "none/none", "u")
    store.remove_if_empty("t")
    assert [each.path for each in store.files("")] == ["t/a.history/z", "t/b"]
    store.remove("t/b", "t/a.history")
    store.remove_if_empty("t")
    store.remove()
    assert store.names("") == []


def test_a_file_is_replaced(opened: Open) -> None:
    store = opened()
    for content in (b"one", b"another"):
        store.replace("t/last", content)
        assert opened().read("t/last") == content


def test_of_all_that_create_a_file_one_does(opened: Open) -> None:
    rounds, writers = 5, 4
    barrier = Barrier(writers)

    def race(writer: int) -> list[bool]:
        store, won = opened(), []
        for each in range(rounds):
            barrier.wait(60)
            won.append(store.create(f"t/{each}", f"{writer}".encode()))
        return won

    with ThreadPoolExecutor(writers) as pool:
        results = list(pool.map(race, range(writers)))
    for each in range(rounds):
        won = [writer for writer in range(writers) if results[writer][each]]
        assert [str(writer).encode() for writer in won] == [opened().read(f"t/{each}")]
    assert opened().names("t") == [str(each) for each in range(rounds)]
