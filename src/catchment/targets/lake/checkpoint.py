"""Checkpoints of Delta's logs: readers need not read every version from the first.

https://github.com/delta-io/delta/blob/master/PROTOCOL.md#checkpoints
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from catchment.model.errors import TargetUnreachable
from catchment.targets.lake.delta import LOG, Snapshot, needed, read_all
from catchment.targets.lake.store import Store

_EVERY = 100
_LAST = "_last_checkpoint"


def is_due(snapshot: Snapshot) -> bool:
    """Whether this version of a table is to have a checkpoint."""
    return snapshot.version - max(0, snapshot.checkpoint) >= _EVERY


def write_checkpoint(store: Store, snapshot: Snapshot) -> Snapshot:
    """Write that of this version.

    delta-rs makes it, on a copy of the log: it does not wait for the disk, and a checkpoint that is named but not whole
    would make the table unreadable.
    """
    files = needed(store, snapshot.path, snapshot.version)
    read = read_all(store, [f"{snapshot.path}/{LOG}/{name}" for name in files])
    contents = {name: content or b"" for name, content in zip(files, read, strict=True)}
    name = f"{snapshot.version:020}.checkpoint.parquet"
    try:
        made, last = _made(contents, name)
    except (OSError, DeltaError) as error:
        remedy = "look at the directory for temporary files; it is tried again"
        raise TargetUnreachable(f"no checkpoint of {snapshot.path} could be made: {error}", remedy=remedy) from error
    if store.create(f"{snapshot.path}/{LOG}/{name}", made):
        store.replace(f"{snapshot.path}/{LOG}/{_LAST}", last)
    return replace(snapshot, checkpoint=snapshot.version)


def _made(contents: Mapping[str, bytes], name: str) -> tuple[bytes, bytes]:
    with TemporaryDirectory(prefix="catchment-") as scratch:
        log = Path(scratch) / LOG
        log.mkdir()
        for each, content in contents.items():
            (log / each).write_bytes(content)
        DeltaTable(scratch).create_checkpoint()
        return (log / name).read_bytes(), (log / _LAST).read_bytes()
