"""What measurements of a whole hub share: `catchment run` in processes of its own, and what they cost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


def configure(directory: Path, sources: Mapping[str, str], ods: str) -> Path:
    """Write catchment.toml; returns its path. ``sources``: a dsn for each name."""
    path = directory / "catchment.toml"
    parts = [f'[[source]]\nname = "{name}"\ndsn = "{dsn}"\n' for name, dsn in sources.items()]
    path.write_text("".join(parts) + f'[ods]\ndsn = "{ods}"\n')
    return path


def command(config: Path, *options: str, name: str = "run") -> list[str]:
    """`catchment run`, or another of its commands, with this configuration."""
    return [sys.executable, "-m", "catchment.cli.main", name, *options, "--config", str(config)]


@contextmanager
def running(config: Path) -> Iterator[int]:
    """A hub for the block; its supervisor's process id."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command(config), stdout=quiet, stderr=quiet) as hub:
        try:
            yield hub.pid
        finally:
            hub.send_signal(signal.SIGINT)


@contextmanager
def paused(root: int) -> Iterator[None]:
    """All of a hub's processes stand still for the block, which must end before its servers miss them."""
    everyone = [root, *descendants(root)]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in everyone:
            os.kill(pid, signal.SIGCONT)


def wait_until(condition: Callable[[], bool], seconds: float = 0.005) -> None:
    """Look every so many seconds until it holds."""
    while not condition():
        time.sleep(seconds)


def memory(root: int) -> float:
    """Megabytes of this process and its descendants, what they share counted once."""
    total = 0
    for pid in [root, *descendants(root)]:
        with suppress(OSError):  # it has just ended
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1000


def cpu(root: int) -> float:
    """Seconds that this process and its descendants have used."""
    total = 0
    for pid in [root, *descendants(root)]:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def stored(directory: Path) -> float:
    """Megabytes of all files below a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) / 1e6


def descendants(pid: int) -> Iterator[int]:
    """The process ids of its children, and of theirs."""
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from descendants(child)
