"""A log that lives as long as its object: for tests, and the contract in its plainest form."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Condition, Lock
from uuid import uuid4

from catchment.log.base import Span, State, Tail
from catchment.log.continuity import NO_CHANGES, NO_LOG, Standing
from catchment.log.payload import decode, encode
from catchment.model.batch import Batch
from catchment.model.errors import LogBusy, LogTrimmed
from catchment.model.frontier import Frontier


@dataclass(frozen=True, slots=True)
class _Stored:
    offset: int
    batch: Batch
    bytes: int
    appended_at: datetime


@dataclass(slots=True)
class _Record:
    """One source's log; ``standing`` is null until a writer has made it."""

    changed: Condition = field(default_factory=Condition)
    calls: int = 0
    standing: Standing | None = None
    first: int = 1
    stored: list[_Stored] = field(default_factory=list)
    writer: MemoryWriter | None = None

    def call(self) -> None:
        with self.changed:
            self.calls += 1
            self.changed.notify_all()

    def finished(self, after: int) -> list[_Stored]:
        tail = self.standing.tail.frontier.offset if self.standing else 0
        return [stored for stored in self.stored if after < stored.offset <= tail]


class MemoryWriter:
    """Appends to one source's log in memory."""

    def __init__(self, source: str, record: _Record, standing: Standing) -> None:
        self._source = source
        self._record = record
        self._standing = standing

    @property
    def tail(self) -> Tail:
        return self._standing.tail

    def append(self, batch: Batch, state: State = NO_CHANGES) -> int:
        standing = self._standing.step(self._source, batch, state)
        payload = encode(batch)
        with self._record.changed:
            stored = _Stored(standing.offset, decode(payload), len(payload), datetime.now(UTC))
            self._record.stored.append(stored)
            self._record.standing = self._standing = standing
            self._record.changed.notify_all()
        return standing.offset

    def close(self) -> None:
        with self._record.changed:
            if self._record.writer is self:
                self._record.writer = None


class MemoryLog:
    """All sources' logs in memory. Trims at any offset."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._records: dict[str, _Record] = {}

    def open_writer(self, source: str) -> MemoryWriter:
        record = self._record(source)
        with record.changed:
            if record.writer:
                raise LogBusy("another writer has the log open", source=source)
            record.standing = Standing.at(record.standing.tail) if record.standing else Standing.start(uuid4())
            record.stored = record.finished(0)
            record.writer = MemoryWriter(source, record, record.standing)
            return record.writer

    def wait(self, source: str, after: int, timeout: float, most_bytes: int = sys.maxsize) -> Span:
        record = self._record(source)
        with record.changed:
            calls = record.calls
            record.changed.wait_for(lambda: bool(record.finished(after)) or record.calls != calls, timeout)
            if record.standing is None:
                return Span(NO_LOG, 1, after, 0, None)
            log = record.standing.tail.frontier.log
            unread = record.finished(after)
            if not unread:
                return Span(log, record.first, after, 0, None)
            last = total = passed = 0
            for stored in unread:
                passed += stored.bytes
                if last and passed > most_bytes:
                    break
                if stored.batch.ends_transaction:
                    last, total = stored.offset, passed
            return Span(log, record.first, last, total, unread[0].appended_at)

    def wake(self, source: str) -> None:
        self._record(source).call()

    def read(self, source: str, after: int, through: int) -> Iterator[tuple[Frontier, Batch]]:
        record = self._record(source)
        while after < through:
            with record.changed:
                if after + 1 < record.first:
                    raise LogTrimmed(
                        f"offset {after + 1} is no longer kept, {record.first} is the first", source=source
                    )
                unread = record.finished(after)
                if record.standing is None or not unread:
                    return
                log, stored = record.standing.tail.frontier.log, unread[0]
            yield Frontier(log, stored.offset, stored.batch.until, stored.batch.committed_at), stored.batch
            after = stored.offset

    def state(self, source: str) -> Mapping[str, bytes]:
        record = self._record(source)
        with record.changed:
            return record.standing.tail.state if record.standing else {}

    def trim(self, source: str, through: int) -> int:
        record = self._record(source)
        with record.changed:
            for stored in record.finished(0):
                if stored.offset <= through:
                    record.stored.remove(stored)
                    record.first = stored.offset + 1
            return record.first

    def excess(self, source: str, most_bytes: int) -> int:
        record = self._record(source)
        with record.changed:
            kept = record.finished(0)
            surplus = sum(stored.bytes for stored in kept) - most_bytes
            through = 0
            for stored in kept:
                if surplus <= 0:
                    break
                surplus -= stored.bytes
                through = stored.offset
            return through

    def remove(self, source: str) -> None:
        record = self._record(source)
        with record.changed:
            if record.writer:
                raise LogBusy("a writer has the log open", source=source)
            record.standing, record.first, record.stored = None, 1, []
        record.call()

    def _record(self, source: str) -> _Record:
        with self._lock:
            return self._records.setdefault(source, _Record())
