"""The commit across tables: a record in ``_frontier/`` names the versions of a source's tables that belong together.

Each record is a file of its own, numbered and written only if there is none of that number: of two that write for one
source, one goes on. What no record names has not happened yet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID, uuid4

from catchment.model.errors import TargetRefused, TargetUnreachable
from catchment.model.frontier import Frontier
from catchment.model.lsn import Lsn
from catchment.targets.lake.naming import FRONTIERS
from catchment.targets.lake.store import Store

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """What has become of one table of the source.

    ``version`` is that of the current state at ``path``, null before its first load has ended. ``history``: the version
    of the history, null when there is none. ``takes``: whether the current state takes changes; else it stays as it is
    until a refill. ``waits``: nothing but a refill, for which nobody has asked yet, helps. ``refill`` builds
    ``shadow``, by now at ``shadow_version``. Whoever replays the history begins behind the ``_seq`` called ``since``;
    that of the shadow is ``shadow_since``.
    """

    oid: int
    schema: str
    name: str
    path: str
    version: int | None = None
    history: int | None = None
    takes: bool = False
    waits: bool = False
    since: int = 0
    refill: str | None = None
    shadow: str | None = None
    shadow_version: int | None = None
    shadow_since: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """``frontier`` is null when the source is being forgotten. ``seq``: the last one of the source that was seen."""

    number: int
    frontier: Frontier | None
    seq: int = 0
    entries: Mapping[int, Entry] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """As it is stored."""
        place = None
        if self.frontier is not None:
            place = {
                "log": str(self.frontier.log),
                "offset": self.frontier.offset,
                "lsn": str(self.frontier.lsn),
                "committed_at": self.frontier.committed_at.isoformat(),
            }
        told = {
            "format": _FORMAT,
            "frontier": place,
            "seq": self.seq,
            "written_at": datetime.now(UTC).isoformat(),
            "id": str(uuid4()),  # no two records are alike, whoever writes them
            "tables": [asdict(entry) for entry in self.entries.values()],
        }
        return json.dumps(told).encode()

    @classmethod
    def from_bytes(cls, number: int, content: bytes) -> Self:
        """Read what ``to_bytes`` made. Raises ValueError."""
        told: dict[str, Any] = json.loads(content)
        if told["format"] != _FORMAT:
            raise ValueError("another format")
        frontier = None
        if place := told["frontier"]:
            at = datetime.fromisoformat(place["committed_at"])
            frontier = Frontier(UUID(place["log"]), place["offset"], Lsn.parse(place["lsn"]), at)
        entries = [Entry(**entry) for entry in told["tables"]]
        return cls(number, frontier, told["seq"], {entry.oid: entry for entry in entries})


class Records:
    """Those of one source."""

    def __init__(self, store: Store, source: str) -> None:
        self.directory = f"{FRONTIERS}/{source}"
        self._store = store
        self._source = source

    def latest(self, known: Record | None = None) -> Record | None:
        """The last record, found quickly when it is the ``known`` one or behind it; null when there is none."""
        found = None if known is None else self.read(known.number)
        while found is None and (numbers := self.numbers()):
            found = self.read(numbers[-1])  # it is removed only once there is a later one
        while found is not None and (following := self.read(found.number + 1)) is not None:
            found = following
        return found

    def numbers(self) -> list[int]:
        """Of all records that are kept."""
        names = self._store.names(self.directory)
        return sorted(int(name.removesuffix(".json")) for name in names if name[0] != "." and name.endswith(".json"))

    def read(self, number: int) -> Record | None:
        """One record; null when it is not there. Raises TargetRefused when it does not read back."""
        path = self.path(number)
        content = self._store.read(path)
        if content is None:
            return None
        try:
            return Record.from_bytes(number, content)
        except (ValueError, KeyError, TypeError) as error:
            remedy = "put the file back as it was"
            what = f"{path} does not read back as it was written"
            raise TargetRefused(what, source=self._source, remedy=remedy) from error

    def write(self, record: Record) -> Record:
        """Commit. Raises TargetUnreachable when another one was quicker."""
        is_new = self._store.create(self.path(record.number), record.to_bytes())
        if is_new and self._is_out_of_date(record):
            self._store.remove(self.path(record.number))
            is_new = False
        if not is_new:
            raise TargetUnreachable(
                f"{self.path(record.number)} has been written by somebody else",
                source=self._source,
                remedy="if it is not an earlier run that is just ending, give each hub its own lake",
            )
        return record

    def _is_out_of_date(self, record: Record) -> bool:
        """Whether there was one of that number, which is so old that it has been removed."""
        if record.number:
            return self.read(record.number - 1) is None
        return self.numbers()[-1:] != [0]

    def path(self, number: int) -> str:
        """The file of the record with this number."""
        return f"{self.directory}/{number:020}.json"


def first(frontier: Frontier | None = None) -> Record:
    """What comes before the first record."""
    return Record(-1, frontier)


def following(record: Record, frontier: Frontier | None, seq: int, entries: Mapping[int, Entry]) -> Record:
    """The next record."""
    return replace(record, number=record.number + 1, frontier=frontier, seq=seq, entries=dict(entries))
