"""A lake's files in memory: a copy of them costs nothing, and the process may be killed at any operation on them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from catchment.targets.lake.local import LocalStore
from catchment.targets.lake.store import Content, Found

Files = dict[str, bytes]


class Killed(BaseException):
    """The process is gone."""


class Fate:
    """``fatal``: the operation at which the process is killed. ``torn``: when a part of it has been done."""

    def __init__(self, fatal: int | None = None, torn: bool = False) -> None:
        self.count = 0
        self._fatal = fatal
        self._torn = torn

    def operation(self) -> Literal["whole", "torn"]:
        self.count += 1
        if self._fatal is None or self.count < self._fatal:
            return "whole"
        if self.count == self._fatal and self._torn:
            return "torn"
        raise Killed


class MemoryStore(LocalStore):
    """``files`` outlive it. Whatever touches one file is one operation."""

    def __init__(self, files: Files, fate: Fate) -> None:
        self._files = files
        self._fate = fate

    def location(self, path: str) -> str:
        return path

    def read(self, path: str) -> bytes | None:
        return self._files.get(path)

    def open(self, path: str) -> pa.NativeFile:
        return pa.BufferReader(self._files[path])

    def names(self, directory: str) -> list[str]:
        return sorted({path.partition("/")[0] for path in self._below(directory)})

    def files(self, directory: str) -> list[Found]:
        """The last one was written just now, each other one an hour before the one behind it."""
        paths = sorted(self._below(directory))
        hours = range(len(paths) - 1, -1, -1)
        now = datetime.now(UTC)
        return [
            Found(path, len(self._files[f"{directory}/{path}"]), now - timedelta(hours=each))
            for path, each in zip(paths, hours, strict=True)
        ]

    def write(self, files: Mapping[str, Content]) -> None:
        for path, content in files.items():
            assert path not in self._files
            self._put(path, bytes(content), torn=path)

    def create(self, path: str, content: bytes) -> bool:
        if path in self._files:
            return False
        self._put(path, content, torn=self._passing(path))
        return True

    def replace(self, path: str, content: bytes) -> None:
        self._put(path, content, torn=self._passing(path))

    def rename(self, path: str, to: str) -> None:
        self.remove(to)
        self._operation()
        for name in list(self._below(path)):
            self._files[f"{to}/{name}"] = self._files.pop(f"{path}/{name}")

    def map(self, path: str, rows: int, columns: int) -> npt.NDArray[np.uint64]:
        return np.frombuffer(self._files[path], np.uint64).reshape(rows, columns)

    def size(self, path: str) -> int | None:
        return len(self._files[path]) if path in self._files else None

    def remove(self, *paths: str) -> None:
        for path in paths:
            for file in [path] if path in self._files else [f"{path}/{name}" for name in self._below(path)]:
                self._operation()
                del self._files[file]

    def remove_if_empty(self, directory: str) -> None:
        """There are no directories."""

    def _below(self, directory: str) -> list[str]:
        return [path[len(directory) + 1 :] for path in self._files if path.startswith(f"{directory}/")]

    def _put(self, path: str, content: bytes, torn: str) -> None:
        if self._fate.operation() == "torn":
            self._files[torn] = content[: len(content) // 2]
            raise Killed
        self._files[path] = content

    def _operation(self) -> None:
        if self._fate.operation() == "torn":
            raise Killed

    @staticmethod
    def _passing(path: str) -> str:
        directory, _, name = path.rpartition("/")
        return f"{directory}/.{name}.0"
