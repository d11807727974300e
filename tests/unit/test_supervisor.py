"""The supervisor and the processes that it keeps going."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from catchment.hub.memory import MemoryHub
from catchment.pipeline.supervisor import Supervisor, WorkerProcess


def test_a_worker_that_cannot_be_started_is_tried_again_and_again_ever_more_rarely() -> None:
    worker = WorkerProcess("worker-1", ["/nowhere/python"])
    with capture_logs() as told:
        for _ in range(1_100):
            worker.start()
    assert worker.process is None
    assert worker.start_at > worker.started
    assert worker.pause == 30.0
    assert {line["error"] for line in told} == {"No such file or directory"}


def test_the_supervisor_outlives_a_program_that_is_missing_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # it would keep them from pytest
    program = tmp_path / "python"
    supervisor = Supervisor({"worker-1": [str(program), "-c", "pass"]}, MemoryHub())

    def replace() -> None:
        while not supervisor.workers[0].start_at:
            time.sleep(0.01)
        program.symlink_to(sys.executable)

    replacing = threading.Thread(target=replace, daemon=True)
    replacing.start()
    assert supervisor.run(until_caught_up=True) == 0
    replacing.join()
