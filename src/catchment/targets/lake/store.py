"""The files of a lake, wherever they are: all that the lake asks of a place to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

import pyarrow as pa

Content: TypeAlias = "pa.Buffer | bytes | memoryview"


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is there. ``path`` is relative to the directory that was asked for, ``size`` in bytes."""

    path: str
    size: int
    modified: datetime


class Store(Protocol):
    """Paths are relative to the root, with ``/`` between their parts. What is written is there whole or not at all.

    Every method raises TargetUnreachable, which is retried, and TargetRefused. After TargetUnreachable it is not known
    whether the file was written.
    """

    def location(self, path: str) -> str:
        """Where other readers find it."""

    def read(self, path: str) -> bytes | None:
        """The content; null when there is no such file."""

    def open(self, path: str) -> pa.NativeFile:
        """To be read from anywhere in it. Raises TargetUnreachable when there is no such file."""

    def names(self, directory: str) -> list[str]:
        """What is in a directory, files and directories, in order; nothing when it is not there."""

    def files(self, directory: str) -> list[Found]:
        """All files below a directory, in the order of their paths; nothing when it is not there."""

    def write(self, files: Mapping[str, Content]) -> None:
        """Write new files, whose names nobody else uses. Durable on return."""

    def create(self, path: str, content: bytes) -> bool:
        """Write a file whole unless there is one already; whether it was written. Durable on return.

        Of all that try, in whatever process, one writes it. The content has to be like nobody else's: by it a writer
        that did not get the answer knows its own file.
        """

    def replace(self, path: str, content: bytes) -> None:
        """Give a file this content in one step. Durable on return."""

    def remove(self, *paths: str) -> None:
        """Delete files or whole directories, if they are there. Gone for good on return."""

    def remove_if_empty(self, directory: str) -> None:
        """People may keep things of their own there."""
