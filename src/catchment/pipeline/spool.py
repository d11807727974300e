"""Transactions in progress, on disk until they are committed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from catchment.pipeline.held import full_disk
from catchment.wire.streamed import Aborted, Blocks, Committed
from catchment.wire.twin import Messages, pack, unpack

_MOST_BYTES = 4 * 2**20


class _Transaction:
    """The parts of one transaction, in a file that is not durable: they are sent again after a restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._aborted: set[int] = set()
        with full_disk("a transaction in progress"):
            path.touch(mode=0o600)
            self._file: BinaryIO = path.open("wb+", buffering=_MOST_BYTES)

    def add(self, records: bytes) -> None:
        with full_disk("a transaction in progress"):
            self._file.write(records)

    def abort(self, subtransaction: int) -> None:
        self._aborted.add(subtransaction)

    def messages(self) -> Iterator[Sequence[bytes]]:
        """Those that are not rolled back, a few megabytes at a time."""
        with full_disk("a transaction in progress"):
            self._file.seek(0)
        rest, most = b"", _MOST_BYTES
        while data := self._file.read(most):
            data = rest + data
            end, messages = unpack(data, self._aborted)
            rest = data[end:]
            most = max(_MOST_BYTES, len(rest))  # doubled, until a large message is whole
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
        plain = Messages()
        index = 0
        while index < len(messages):
            if (inside := self._blocks.xid) is not None:
                index, records = pack(messages, index, inside)
                if records:
                    self._of(inside).add(records)
                if index == len(messages):
                    break
            match self._blocks.take(messages[index]):
                case bytes() as own:
                    plain.append(own)
                case Committed(xid, begin, commit):
                    plain.append(begin)
                    yield plain
                    yield from self._of(xid).messages()
                    plain = Messages()
                    plain.append(commit)
                    self._forget(xid)
                case Aborted(xid, subtransaction) if xid == subtransaction:
                    self._forget(xid)
                case Aborted(xid, subtransaction):
                    self._of(xid).abort(subtransaction)
            index += 1
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
