"""Whether there is space for what a hub keeps. Asked of the file system: a full disk takes no report that says so."""

from __future__ import annotations

import os
from pathlib import Path

LITTLE = 64 << 20
"""With fewer bytes than this a hub is about to stand still."""


def free_bytes(directory: Path) -> int | None:
    """What an ordinary user may still write where this directory is; null when that cannot be asked."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def shortage(directory: Path) -> str | None:
    """The sentence of a disk that is full, or as good as; null when there is space."""
    free = free_bytes(directory)
    if free is None or free >= LITTLE:
        return None
    return (
        f"the disk with [hub] state {directory} has {free / 1e6:.1f} MB left: without space nothing is acknowledged, "
        "and the sources keep their WAL; free some space, or lower [log] max_bytes"
    )
