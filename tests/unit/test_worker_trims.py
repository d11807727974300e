"""A worker trims the logs of its sources, each on its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from structlog.testing import capture_logs

from catchment.hub.memory import MemoryHub
from catchment.log import segment
from catchment.log.segment import Segment
from catchment.log.sqlite import SqliteLog
from catchment.model.batch import Batch
from catchment.model.lsn import Lsn
from catchment.pipeline.collector import Collector
from catchment.pipeline.deliver import Deliverer
from catchment.pipeline.status import Stopping
from catchment.pipeline.worker import Hosted, Worker
from catchment.postgres.source import Source
from catchment.targets.recording import RecordingTarget

SOURCES = ("orders", "payments", "stock")
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@contextmanager
def hosting(directory: Path) -> Iterator[tuple[Worker, SqliteLog]]:
    """A worker whose targets have all of each source's log, which is three files."""
    log, hub = SqliteLog(directory, segment_bytes=1), MemoryHub()

    def host(name: str) -> Hosted:
        with closing(log.open_writer(name)) as writer:
            for number in range(3):
                writer.append(Batch(name, Lsn(number), Lsn(number + 1), 0, True, NOON, ()))
        deliverer = Deliverer(name, RecordingTarget("recording"), log, hub, Stopping())
        deliverer.identity, deliverer.durable = log.wait(name, 0, 0).log, 3
        collector = cast("Collector", SimpleNamespace(reached=3, keep=None))
        return Hosted(cast("Source", SimpleNamespace(name=name)), deliverer.status, collector, [deliverer], Stopping())

    with closing(log):
        yield Worker("w1", [host(name) for name in SOURCES], log, hub, 2**40, log.close), log


def test_a_log_that_cannot_be_trimmed_keeps_no_other_from_it_and_is_told_once(tmp_path: Path) -> None:
    with hosting(tmp_path) as (worker, log), capture_logs() as told:
        (tmp_path / "orders").rename(tmp_path / "elsewhere")
        (tmp_path / "orders").touch()
        worker._trim()
        worker._trim()
        assert [log.wait(name, 0, 0).first for name in ("payments", "stock")] == [3, 3]
        assert [(each["event"], each["source"]) for each in told] == [("log not trimmed", "orders")]
        assert f"source orders: cannot read {tmp_path / 'orders'}: Not a directory" in told[0]["error"]
        (tmp_path / "orders").unlink()
        (tmp_path / "elsewhere").rename(tmp_path / "orders")
        worker._trim()
        assert log.wait("orders", 0, 0).first == 3
        assert len(told) == 1


@pytest.mark.parametrize("failing", ["stored_bytes", "unlink"])
def test_a_disk_that_fails_is_told_of_the_log_that_it_fails_for_until_it_is_trimmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    real = getattr(segment, failing)

    def fail(one: Segment) -> object:
        if one.path.parent.name == "orders":
            raise OSError(5, "Input/output error")
        return real(one)

    with hosting(tmp_path) as (worker, log), capture_logs() as told:
        with monkeypatch.context() as patched:
            patched.setattr(segment, failing, fail)
            worker._trim()
            worker._trim()
        assert [log.wait(name, 0, 0).first for name in SOURCES] == [1, 3, 3]
        assert [(each["event"], each["source"]) for each in told] == [("log not trimmed", "orders")]
        assert "Input/output error" in told[0]["error"]
        worker._trim()
        assert [log.wait(name, 0, 0).first for name in SOURCES] == [3, 3, 3]
