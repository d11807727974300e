"""A second run on the same state directory is refused."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from catchment.hub.lock import StateLock, held
from catchment.model.errors import HubBusy, HubError

HOLDER = """
import sys
from pathlib import Path
from catchment.hub.lock import StateLock
with StateLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "var")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_with_the_first_ones_process_id(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    assert held(tmp_path / "var")
    with pytest.raises(HubBusy, match=f"process {holder.pid}, holds {tmp_path / 'var'}; stop it first"):
        StateLock(tmp_path / "var")
    holder.communicate()
    assert not held(tmp_path / "var")
    with StateLock(tmp_path / "var"):
        assert (tmp_path / "var" / "run.lock").read_text() == str(os.getpid())


def test_a_killed_run_holds_nothing(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert not held(tmp_path / "var")
    StateLock(tmp_path / "var").release()


def test_a_directory_that_no_hub_ever_used_is_not_held(tmp_path: Path) -> None:
    assert not held(tmp_path / "var")
    assert not (tmp_path / "var").exists()


def test_the_directory_and_the_file_are_for_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with StateLock(tmp_path / "deep" / "var"):
            assert stat.S_IMODE((tmp_path / "deep" / "var").stat().st_mode) == 0o700
            assert stat.S_IMODE((tmp_path / "deep" / "var" / "run.lock").stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_somebody_who_only_looks_never_keeps_a_run_from_starting(tmp_path: Path) -> None:
    StateLock(tmp_path).release()
    program = """
import sys
from pathlib import Path
from catchment.hub.lock import held
print("looking", flush=True)
while True:
    held(Path(sys.argv[1]))
"""
    looker = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert looker.stdout is not None
        looker.stdout.readline()
        for _ in range(1000):
            StateLock(tmp_path).release()
    finally:
        looker.kill()
        looker.communicate()


def test_a_place_that_cannot_be_a_directory_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")
    with pytest.raises(HubError, match=r"cannot use .*var: .*\[hub\] state"):
        StateLock(tmp_path / "var")
    with pytest.raises(HubError, match="cannot use"):
        held(tmp_path / "var")
