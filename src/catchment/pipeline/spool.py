"""Transactions in progress, on disk until they are committed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import BinaryIO

from catchment.pipeline.held import full_disk
from catchment.wire.streamed import Aborted, Blocks, Committed, Part

_RECORD = Struct(">II")
_MOST_BYTES = 4 * 2**20


class _Transaction:
    """The parts of one transaction, in a file that is not durable: they are sent again after a restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aborted: set[int] = set()
        with full_disk("a transaction in progress"):
            path.touch(mode=0o600)
            self._file: BinaryIO = path.open("wb+", buffering=_MOST_BYTES)

    def add(self, part: Part) -> None:
        with full_disk("a transaction in progress"):
            self._file.write(_RECORD.pack(part.subtransaction, len(part.message)))
            self._file.write(part.message)

    def abort(self, subtransaction: int) -> None:
        self._aborted.add(subtransaction)

    def messages(self) -> Iterator[list[bytes]]:
        """Those that are not rolled back, a few megabytes at a time."""
        messages: list[bytes] = []
        size = 0
        with full_disk("a transaction in progress"):
            self._file.seek(0)
        while record := self._file.read(_RECORD.size):
            subtransaction, length = _RECORD.unpack(record)
            message = self._file.read(length)
            if subtransaction not in self._aborted:
                messages.append(message)
                size += length
            if size >= _MOST_BYTES:
                yield messages
                messages, size = [], 0
        yield messages

    def remove(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


class Spool:
    """Makes whole transactions of a stream that has parts of unfinished ones in it. Raises DecodeError, LogFull."""

    def __init__(self, directory: Path) -> None:
        for left in directory.glob("*.messages"):  # by a process that was killed
            left.unlink()
        self._directory = directory
        self._blocks = Blocks()
        self._open: dict[int, _Transaction] = {}

    def whole(self, messages: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        """The same messages as protocol version 1 would have them: each transaction at once, when it is committed."""
        if not self._blocks.concern(messages):
            yield messages
            return
        plain: list[bytes] = []
        for message in messages:
            match self._blocks.take(message):
                case bytes() as own:
                    plain.append(own)
                case Part() as part:
                    self._of(part.xid).add(part)
                case Committed(xid, begin, commit):
                    yield [*plain, begin]
                    yield from self._of(xid).messages()
                    plain = [commit]
                    self._forget(xid)
                case Aborted(xid, subtransaction) if xid == subtransaction:
                    self._forget(xid)
                case Aborted(xid, subtransaction):
                    self._of(xid).abort(subtransaction)
        yield plain

    def _of(self, xid: int) -> _Transaction:
        if xid not in self._open:
            with full_disk("a transaction in progress"):
                self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._open[xid] = _Transaction(self._directory / f"{xid}.messages")
        return self._open[xid]

    def _forget(self, xid: int) -> None:
        if (transaction := self._open.pop(xid, None)) is not None:
            transaction.remove()

    def close(self) -> None:
        """Let go of what is unfinished: the server sends it again."""
        for xid in list(self._open):
            self._forget(xid)
