"""Files in the bucket of an object store: an object is there whole or not at all, and durable once it is there.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from posixpath import dirname
from typing import Any

import obstore.store
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from catchment.model.errors import TargetError, TargetRefused, TargetUnreachable
from catchment.targets.lake.naming import FRONTIERS
from catchment.targets.lake.store import Content, Found

_PROBE = f"{FRONTIERS}/.conditional"
_PART = 8 << 20
_PARTS_AT_ONCE = 4
_STATUS = re.compile(r"status code: ([0-9]{3})")
_CODE = re.compile(r"<Code>([A-Za-z]+)</Code>")
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
_NO_CREDENTIALS = ("//169.254.", "//metadata.google.internal", "//[fd00:ec2::254]")
_NOT_HTTPS = "BadScheme"
_ANOTHER_REGION = "incorrectly configured region"
_TRIED_AGAIN = frozenset({408, 409, 429})


class BucketStore:
    """A bucket, or what is below a prefix of it, as a ``Store``. ``uri`` is what others know it by."""

    def __init__(self, objects: obstore.store.ObjectStore, uri: str) -> None:
        self._objects = objects
        self._uri = uri
        self._is_conditional = False

    def location(self, path: str) -> str:
        """Where other readers find it."""
        return f"{self._uri}/{path}" if path else self._uri

    def read(self, path: str) -> bytes | None:
        """The content; null when there is no such file."""
        with self._translated(path):
            try:
                return self._objects.get(path).bytes().to_bytes()
            except FileNotFoundError as error:
                if _has_no_bucket(error):
                    raise
                return None

    def open(self, path: str) -> pa.NativeFile:
        """To be read from anywhere in it: a small one is fetched whole, of a large one what is looked at."""
        with self._translated(path):
            found = self._objects.get(path)
            size = found.meta["size"]
            if size <= _PART:
                return pa.BufferReader(found.bytes().to_bytes())
        return pa.PythonFile(_Ranges(self, path, size), mode="r")

    def names(self, directory: str) -> list[str]:
        """What is in a directory, files and directories, in order; nothing when it is not there."""
        with self._translated(directory):
            listed = self._objects.list_with_delimiter(directory or None)
        paths = [*listed["common_prefixes"], *(each["path"] for each in listed["objects"])]
        return sorted(path.rpartition("/")[2] for path in paths)

    def files(self, directory: str) -> list[Found]:
        """All files below a directory, in the order of their paths; nothing when it is not there."""
        above = f"{directory}/" if directory else ""
        found = [
            Found(each["path"].removeprefix(above), each["size"], each["last_modified"])
            for each in self._below(directory)
        ]
        return sorted(found, key=attrgetter("path"))

    def write(self, files: Mapping[str, Content]) -> None:
        """Write new files, whose names nobody else uses. Large ones go in parts."""
        for path, content in files.items():
            with self._translated(path):
                whole = memoryview(content).cast("B")
                self._objects.put(path, whole, chunk_size=_PART, max_concurrency=_PARTS_AT_ONCE)

    def create(self, path: str, content: bytes) -> bool:
        """Write a file unless there is one already; whether it was written.

        The answer to a put can be lost: that of the next try is that there is one already. So it is when two puts meet
        and S3 takes neither (409): the library does not tell one from the other.
        """
        if not self._is_conditional:
            self._see_that_it_is_conditional()
        if self._put_if_absent(path, content):
            return True
        if (there := self.read(path)) is None:
            what = f"{self.location(path)}: another write of it was under way, and neither has come to anything"
            raise TargetUnreachable(what, remedy="it is tried again")
        return there == content

    def replace(self, path: str, content: bytes) -> None:
        """Give a file this content in one step."""
        self.write({path: content})

    def remove(self, *paths: str) -> None:
        """Delete files or whole directories, if they are there."""
        wanted, there = set(paths), []
        for parent in sorted({dirname(path) for path in wanted}):
            with self._translated(parent):
                listed = self._objects.list_with_delimiter(parent or None)
            there += [each["path"] for each in listed["objects"] if each["path"] in wanted]
            for directory in (each for each in listed["common_prefixes"] if each in wanted):
                there += [each["path"] for each in self._below(directory)]
        if there:
            with self._translated(there[0]):
                self._objects.delete(there)

    def remove_if_empty(self, directory: str) -> None:
        """There are no empty directories."""

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """A part of a file."""
        with self._translated(path):
            return self._objects.get_range(path, start=start, length=length).to_bytes()

    def _below(self, directory: str) -> list[Any]:
        with self._translated(directory):
            return list(self._objects.list(directory or None).collect())

    def _put_if_absent(self, path: str, content: bytes) -> bool:
        with self._translated(path):
            try:
                self._objects.put(path, content, mode="create")
            except (AlreadyExistsError, PreconditionError):  # which of them depends on the kind of store
                return False
        return True

    def _see_that_it_is_conditional(self) -> None:
        """A store that does not know the condition overwrites what is there, and says that all is well."""
        if self._put_if_absent(_PROBE, b"") and self._put_if_absent(_PROBE, b""):
            raise TargetRefused(
                f"{self._uri} overwrites what is there although it is told not to (If-None-Match)",
                remedy="use an object store with conditional writes: without them two writers destroy a lake",
            )
        self._is_conditional = True

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        """The library's texts are not repeated: their addresses may hold signatures, and they have answers in full."""
        try:
            yield
        except (BaseError, OSError) as error:
            raise self._explained(path, error) from None

    def _explained(self, path: str, error: Exception) -> TargetError:
        status, code = _answer(error)
        said = f"{status} {code or ''}".strip()
        if _has_no_bucket(error):
            return TargetRefused(f"{self._uri}: there is no such bucket", remedy="make it, or give [lake] another uri")
        if any(place in str(error) for place in _NO_CREDENTIALS):
            remedy = "set them in the environment of the hub, or in [lake.options]"
            return TargetRefused(f"{self._uri}: no credentials were found", remedy=remedy)
        if _NOT_HTTPS in str(error):
            remedy = 'write https://, or allow_http = "true" in [lake.options] where that is safe'
            return TargetRefused(f"{self._uri}: its endpoint is http://", remedy=remedy)
        if _ANOTHER_REGION in str(error):
            remedy = "set region in [lake.options], or AWS_REGION"
            return TargetRefused(f"{self._uri}: the bucket is in another region", remedy=remedy)
        if isinstance(error, FileNotFoundError):
            return TargetUnreachable(f"{self.location(path)} is gone", remedy="it is tried again")
        if status in (401, 403):
            remedy = "check the credentials; they need the right to list the bucket and to read, write and delete there"
            return TargetRefused(f"{self._uri}: access is denied ({said})", remedy=remedy)
        if status == 501 or (status is not None and 300 <= status < 500 and status not in _TRIED_AGAIN):
            remedy = "check uri and options of [lake], the region and the endpoint"
            return TargetRefused(f"{self._uri} refuses what it is asked ({said})", remedy=remedy)
        what = (
            f"{self._uri} cannot be reached" if status is None else f"{self._uri} does not answer as it should ({said})"
        )
        remedy = "check the network, and uri and options of [lake]; it is tried again"
        return TargetUnreachable(what, remedy=remedy)


class _Ranges(io.RawIOBase):
    """Of a file, what is read of it."""

    def __init__(self, store: BucketStore, path: str, size: int) -> None:
        self._store = store
        self._path = path
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = begin + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        rest = max(0, self._size - self._at)
        length = rest if size < 0 else min(size, rest)
        found = self._store.read_range(self._path, self._at, length) if length else b""
        self._at += len(found)
        return found


def _answer(error: Exception) -> tuple[int | None, str | None]:
    """The status of HTTP and the code in the answer, as far as there was one."""
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    return int(status[1]) if status else None, code[1] if code else None


def _has_no_bucket(error: Exception) -> bool:
    return _answer(error)[1] in _NO_BUCKET
