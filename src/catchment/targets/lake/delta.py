"""Delta tables: what a version holds, and the next one, committed by us.

https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import pyarrow.parquet as pq

from catchment.model.errors import TargetRefused, TargetUnreachable
from catchment.targets.lake.deleted import Stored
from catchment.targets.lake.store import Store

LOG = "_delta_log"
ENGINE = "catchment"
"""Who says to have written a version."""

_AT_ONCE = 16
_LOGGED = re.compile(r"([0-9]{20})\.(json|checkpoint\.parquet)")
# What was removed stands in checkpoints for so long. Vacuum does without, and a week of it makes them large.
_FORGETFUL = {"delta.deletedFileRetentionDuration": "interval 1 hours"}
_NO_ROOM_FOR_OTHERS = "if it is not an earlier run that is just ending, let nobody else write to the lake's tables"


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of rows, and which of them are deleted. ``path`` is relative to the table."""

    path: str
    size: int
    rows: int
    partition: Mapping[str, str | None] = field(default_factory=dict)
    deleted: Stored | None = None

    def added(self, rearranged: bool = False) -> dict[str, Any]:
        """The action that puts it into the table."""
        action = {
            "path": self.path,
            "partitionValues": dict(self.partition),
            "size": self.size,
            "modificationTime": _now(),
            "dataChange": not rearranged,
            "stats": json.dumps({"numRecords": self.rows, "tightBounds": self.deleted is None}),
        }
        if self.deleted is not None:
            action["deletionVector"] = _descriptor(self.deleted)
        return {"add": action}

    def removed(self, rearranged: bool = False) -> dict[str, Any]:
        """The action that takes it out of the table."""
        action = {
            "path": self.path,
            "deletionTimestamp": _now(),
            "dataChange": not rearranged,
            "extendedFileMetadata": True,
            "partitionValues": dict(self.partition),
            "size": self.size,
        }
        if self.deleted is not None:
            action["deletionVector"] = _descriptor(self.deleted)
        return {"remove": action}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of a table. ``positions``: how far it has got, by the name of what it follows.

    ``checkpoint``: the last version that has one, -1 when there is none.
    """

    path: str
    version: int
    id: str
    schema: dict[str, Any]
    partitioned_by: tuple[str, ...]
    configuration: Mapping[str, str]
    files: Mapping[str, DataFile]
    positions: Mapping[str, int]
    checkpoint: int = field(default=-1, compare=False)


@dataclass(frozen=True, slots=True)
class Change:
    """What the next version of a table changes. ``schema`` and ``configuration`` are null when they stay."""

    removed: Sequence[DataFile] = ()
    added: Sequence[DataFile] = ()
    schema: dict[str, Any] | None = None
    configuration: Mapping[str, str] | None = None
    positions: Mapping[str, int] = field(default_factory=dict)
    rearranged: bool = False


def create(
    store: Store,
    path: str,
    schema: dict[str, Any],
    configuration: Mapping[str, str],
    change: Change,
    partitioned_by: tuple[str, ...] = (),
    deletion_vectors: bool = True,
) -> Snapshot:
    """Version 0 of a new table. Raises TargetUnreachable when somebody else has just made one there."""
    configuration = {**_FORGETFUL, **configuration}
    empty = Snapshot(path, -1, str(uuid4()), schema, partitioned_by, configuration, {}, {})
    if deletion_vectors:
        features = ["deletionVectors"]
        protocol = {
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": features,
            "writerFeatures": features,
        }
    else:
        protocol = {"minReaderVersion": 1, "minWriterVersion": 2}
    return _commit(store, empty, change, [{"protocol": protocol}, _metadata(empty)])


def commit(store: Store, snapshot: Snapshot, change: Change) -> Snapshot:
    """The version that follows. Raises TargetUnreachable when it is there already: somebody else has written it."""
    following = replace(
        snapshot,
        schema=snapshot.schema if change.schema is None else change.schema,
        configuration=snapshot.configuration if change.configuration is None else change.configuration,
    )
    is_described = change.schema is not None or change.configuration is not None
    return _commit(store, following, change, [_metadata(following)] if is_described else [])


def _commit(store: Store, snapshot: Snapshot, change: Change, actions: list[dict[str, Any]]) -> Snapshot:
    version = snapshot.version + 1
    # No two commits are alike: by its content a writer that did not get an answer knows its own.
    told = {"timestamp": _now(), "operation": "WRITE", "engineInfo": ENGINE, "txnId": str(uuid4())}
    actions = [
        {"commitInfo": told},
        *actions,
        *({"txn": {"appId": name, "version": at, "lastUpdated": _now()}} for name, at in change.positions.items()),
        *(file.removed(change.rearranged) for file in change.removed),
        *(file.added(change.rearranged) for file in change.added),
    ]
    content = "".join(json.dumps(action, separators=(",", ":")) + "\n" for action in actions).encode()
    if not store.create(f"{snapshot.path}/{LOG}/{version:020}.json", content):
        raise TargetUnreachable(
            f"version {version} of {snapshot.path} has been written by somebody else", remedy=_NO_ROOM_FOR_OTHERS
        )
    files = dict(snapshot.files)
    for file in change.removed:
        del files[file.path]
    files.update((file.path, file) for file in change.added)
    return replace(snapshot, version=version, files=files, positions={**snapshot.positions, **change.positions})


def read_snapshot(store: Store, path: str, version: int | None = None) -> Snapshot | None:
    """A version of the table, the newest if none is given; null when there is no table.

    Raises TargetRefused when that version is not kept any more, or does not read back.
    """
    names = needed(store, path, version)
    if not names:
        return None
    replay = _Replay()
    begin = -1
    if names[0].endswith(".parquet"):
        begin = int(names.pop(0)[:20])
        replay.checkpoint(store, f"{path}/{LOG}/{begin:020}.checkpoint.parquet")
    for name, content in zip(names, read_all(store, [f"{path}/{LOG}/{name}" for name in names]), strict=True):
        if content is None:
            remedy = "put its file back, or refill the table"
            raise TargetRefused(f"version {int(name[:20])} of {path} is gone", remedy=remedy)
        replay.commit(content)
    return replace(replay.snapshot(path, begin + len(names)), checkpoint=begin)


def needed(store: Store, path: str, version: int | None = None) -> list[str]:
    """The files of the log that say what is in a version, the newest if none is given; none when there is no table."""
    commits, checkpoints = logged(store.names(f"{path}/{LOG}"))
    if not commits and not checkpoints:
        return []
    newest = max(commits | checkpoints) if version is None else version
    begin = max((each for each in checkpoints if each <= newest), default=-1)
    later = [f"{each:020}.json" for each in range(begin + 1, newest + 1)]
    return [f"{begin:020}.checkpoint.parquet", *later] if begin >= 0 else later


def logged(names: Iterable[str]) -> tuple[set[int], set[int]]:
    """Of which versions these files of a log are the commits, and of which they are the checkpoints."""
    commits: set[int] = set()
    checkpoints: set[int] = set()
    for name in names:
        if found := _LOGGED.fullmatch(name):
            (checkpoints if found[2] == "checkpoint.parquet" else commits).add(int(found[1]))
    return commits, checkpoints


def read_all(store: Store, paths: Sequence[str]) -> list[bytes | None]:
    """The contents of many small files, several at a time: in an object store each takes its while."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(store.read, paths))


class _Replay:
    """Actions, taken in order. https://github.com/delta-io/delta/blob/master/PROTOCOL.md#action-reconciliation"""

    def __init__(self) -> None:
        self._metadata: dict[str, Any] | None = None
        self._files: dict[str, DataFile] = {}
        self._positions: dict[str, int] = {}

    def checkpoint(self, store: Store, path: str) -> None:
        """What it says was removed are tombstones: the same file may be there with another deletion vector."""
        with store.open(path) as file:
            for batch in pq.ParquetFile(file).iter_batches():
                actions = map(_without_nulls, batch.to_pylist())
                self._take(action for action in actions if "remove" not in action)

    def commit(self, content: bytes) -> None:
        actions = [json.loads(line) for line in content.splitlines()]
        self._take(action for action in actions if "remove" in action)
        self._take(action for action in actions if "remove" not in action)

    def _take(self, actions: Iterable[dict[str, Any]]) -> None:
        for action in actions:
            match action:
                case {"metaData": dict(metadata)}:
                    self._metadata = metadata
                case {"txn": {"appId": name, "version": at}}:
                    self._positions[name] = at
                case {"remove": {"path": path}}:
                    self._files.pop(path, None)
                case {"add": dict(added)}:
                    self._files[added["path"]] = _file(added)

    def snapshot(self, path: str, version: int) -> Snapshot:
        if self._metadata is None:
            raise TargetRefused(f"{path} does not read back as a Delta table", remedy="put its log back as it was")
        return Snapshot(
            path,
            version,
            self._metadata["id"],
            json.loads(self._metadata["schemaString"]),
            tuple(self._metadata.get("partitionColumns") or ()),
            dict(self._metadata.get("configuration") or {}),
            self._files,
            self._positions,
        )


def _file(added: dict[str, Any]) -> DataFile:
    deleted = None
    if told := added.get("deletionVector"):
        place = (told["storageType"], told["pathOrInlineDv"], told.get("offset"))
        deleted = Stored(*place, told["sizeInBytes"], told["cardinality"])
    partition = dict(added.get("partitionValues") or {})
    return DataFile(added["path"], added["size"], json.loads(added["stats"])["numRecords"], partition, deleted)


def _descriptor(stored: Stored) -> dict[str, Any]:
    return {
        "storageType": stored.kind,
        "pathOrInlineDv": stored.place,
        "offset": stored.offset,
        "sizeInBytes": stored.size,
        "cardinality": stored.rows,
    }


def _metadata(snapshot: Snapshot) -> dict[str, Any]:
    metadata = {
        "id": snapshot.id,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps(snapshot.schema),
        "partitionColumns": list(snapshot.partitioned_by),
        "configuration": dict(snapshot.configuration),
        "createdTime": _now(),
    }
    return {"metaData": metadata}


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    """Parquet gives every action every field, and maps as pairs."""
    return {
        name: dict(each) if isinstance(each, list) and each and isinstance(each[0], tuple) else each
        for name, each in (
            (name, _without_nulls(each) if isinstance(each, dict) else each) for name, each in value.items()
        )
        if each is not None
    }


def _now() -> int:
    return time.time_ns() // 1_000_000
