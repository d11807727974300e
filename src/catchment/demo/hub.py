"""``catchment run`` as a process beside the demo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from catchment.demo.scratch import scratch_directory, server_ended, start_server
from catchment.model.errors import HubDown

_GRACE_SECONDS = 30.0


class HubProcess:
    """A hub for this catchment.toml; what it says goes into ``output``. It ends with this interpreter."""

    def __init__(self, config: Path, output: Path) -> None:
        self._command = [sys.executable, "-m", "catchment.cli.main", "run", "--config", str(config)]
        self._output = output
        self._home = scratch_directory()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns at once, long before it collects anything."""
        with self._output.open("wb") as output:
            self._process = start_server(self._home, *self._command, output=output)

    def stop(self) -> None:
        """Returns when it has ended, with its workers."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()  # its workers end with it
            self._process.wait()
        server_ended(self._home)

    def must_run(self) -> None:
        """Raises HubDown, with its last words, when it has ended by itself."""
        if self._process is None or self._process.poll() is not None:
            said = self._output.read_text(errors="replace").splitlines()
            raise HubDown("the hub ended by itself", remedy=said[-1] if said else "it said nothing")
