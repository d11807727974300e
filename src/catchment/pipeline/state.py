"""What a collector must know after a restart: versioned JSON, committed with the batches that made it true.

=================  ==============================================================================================
``source``         the system that the log is written from, and what the snapshot of the slot's creation sees
``sequence``       the last ``_seq`` given out
``table:<oid>``    the shape of each table as the stream last told it
``target:<name>``  the offset where the last refill of all tables for this target begins
``refill:<id>``    to whom a refill is addressed and which tables it still has to read
``streamed:<n>``   transactions that were streamed and that no snapshot was yet known to see
=================  ==============================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from catchment.model.errors import LogCorrupt
from catchment.model.table import ReplicaIdentity, Table
from catchment.postgres.catalog import Fingerprint
from catchment.postgres.snapshot import Reached
from catchment.wire.messages import Relation, RelationColumn

_VERSION = 3

SOURCE = "source"
SEQUENCE = "sequence"
TABLE = "table:"
TARGET = "target:"
REFILL = "refill:"
STREAMED = "streamed:"

KEPT = "kept"
"""In the place of a refill's id: changes of a table that is not followed, while it is read. No target sees them."""


MENDED = "mended"
"""In the place of a refill's id: rows read again by their keys. Targets take them as if the stream had brought them."""


def encode(value: Mapping[str, Any]) -> bytes:
    """The stored form of one entry."""
    return json.dumps({"version": _VERSION, **value}, separators=(",", ":")).encode()


def decode(stored: bytes) -> dict[str, Any]:
    """Read what ``encode`` made. Raises LogCorrupt for another version."""
    value: dict[str, Any] = json.loads(stored)
    if value.pop("version", None) != _VERSION:
        raise LogCorrupt("the log's state was written by another version of Catchment", remedy="use that version")
    return value


def entries(state: Mapping[str, bytes], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """All entries of one kind: what follows the prefix, and the value."""
    for key, stored in state.items():
        if key.startswith(prefix):
            yield key.removeprefix(prefix), decode(stored)


@dataclass(frozen=True, slots=True)
class Origin:
    """The system that a log is written from.

    ``snapshot`` is what the snapshot of the slot's creation sees: transactions that it sees are never streamed. It is
    null while the slot is being created, so that a crash in between is recognised. ``publication``: its oid;
    ``tables``: what was published then.
    """

    system: str
    timeline: int
    publication: int
    snapshot: str | None
    tables: tuple[int, ...]

    def encode(self) -> bytes:
        return encode(asdict(self))

    @classmethod
    def of(cls, state: Mapping[str, bytes]) -> Self | None:
        """Null in a log that has just been made."""
        if SOURCE not in state:
            return None
        value = decode(state[SOURCE])
        return cls(**{**value, "tables": tuple(value["tables"])})


@dataclass(frozen=True, slots=True)
class KnownTable:
    """A table's shape as the stream last told it, and the catalog's fingerprint when it was last looked at.

    ``followed``: its changes are in the log; where they are not, a refill will bring the table back. ``refill``: its
    rows have to be read again, for all targets; ``floor``: only once all that was open at that moment, a snapshot's
    text, has ended. ``stopped``: the sentence that says why its rows cannot be read.
    """

    table: Table
    relation: Relation
    fingerprint: Fingerprint = field(default_factory=Fingerprint)
    followed: bool = True
    refill: bool = False
    floor: str | None = None
    stopped: str | None = None

    @property
    def retired(self) -> bool:
        """Whether the publication no longer has it."""
        return not (self.followed or self.refill or self.stopped)

    def encode(self) -> bytes:
        return encode(asdict(self))

    def summary(self) -> dict[str, str | None]:
        """What ``status`` shows of it."""
        state = (
            "stopped" if self.stopped else "refilling" if self.refill else "streaming" if self.followed else "retired"
        )
        return {"name": str(self.table), "state": state, "remedy": self.stopped}

    @classmethod
    def of(cls, state: Mapping[str, bytes]) -> dict[int, KnownTable]:
        """All known tables by oid."""
        known: dict[int, KnownTable] = {}
        for oid, value in entries(state, TABLE):
            relation = value["relation"]
            known[int(oid)] = cls(
                table=Table.from_json(value["table"]),
                relation=Relation(
                    oid=relation["oid"],
                    schema=relation["schema"],
                    name=relation["name"],
                    identity=ReplicaIdentity(relation["identity"]),
                    columns=tuple(RelationColumn(**column) for column in relation["columns"]),
                ),
                fingerprint=Fingerprint.from_json(value["fingerprint"]),
                followed=value["followed"],
                refill=value["refill"],
                floor=value["floor"],
                stopped=value["stopped"],
            )
        return known


@dataclass(frozen=True, slots=True)
class Progress:
    """A table of which some cycles of a backfill have read a part, and the targets were told of it.

    ``version``: of the shape in which it is read. ``reached``: what is to be read next; null once all of it was read
    and only rows are left that wait to be read by their keys. ``since``: changes behind this offset may have left such
    rows. ``rows``: how many were told.
    """

    table: int
    version: int
    reached: Reached | None
    since: int
    rows: int


@dataclass(frozen=True, slots=True)
class Refill:
    """One backfill of some tables for some targets.

    ``tables``: oids still to be read; ``full``: it covers all tables, so a target can begin with it. ``requests``: what
    people asked for. ``started``: the offset where its first rows begin, ``finished``: where it ended; kept until that
    offset is trimmed, for targets that begin in the midst of it. ``progress``: of tables that are read in part.
    ``rows``: how many were told. ``keys``: only the rows of the one table that have these keys are read, one column of
    texts for each column of ``key``, which are known by ``attnum``; targets change them where they are.
    """

    id: str
    tables: tuple[int, ...]
    targets: tuple[str, ...]
    full: bool
    requests: tuple[int, ...] = ()
    started: int | None = None
    finished: int | None = None
    progress: tuple[Progress, ...] = ()
    rows: int = 0
    keys: tuple[tuple[str | None, ...], ...] = ()
    key: tuple[int, ...] = ()

    def without(self, table: int) -> Refill:
        """What remains once this table has been read."""
        return replace(self.begun_again(table), tables=tuple(oid for oid in self.tables if oid != table))

    def with_progress(self, progress: Progress) -> Refill:
        """What remains once so much of a table has been read."""
        return replace(self, progress=(*self.begun_again(progress.table).progress, progress))

    def begun_again(self, table: int) -> Refill:
        """What remains when a table that was read in part has to be read from its beginning."""
        return replace(self, progress=tuple(part for part in self.progress if part.table != table))

    def progress_of(self, table: Table) -> Progress | None:
        """How much of this version of a table has been read; null when nothing has."""
        parts = (part for part in self.progress if (part.table, part.version) == (table.oid, table.version))
        return next(parts, None)

    def encode(self) -> bytes:
        return encode(asdict(self))

    @classmethod
    def of(cls, state: Mapping[str, bytes]) -> list[Refill]:
        """All refills that the log still has something of."""
        return [
            cls(
                **{
                    **value,
                    "tables": tuple(value["tables"]),
                    "targets": tuple(value["targets"]),
                    "requests": tuple(value["requests"]),
                    "keys": tuple(tuple(column) for column in value["keys"]),
                    "key": tuple(value.get("key", ())),
                    "progress": tuple(_progress(**part) for part in value["progress"]),
                }
            )
            for _, value in entries(state, REFILL)
        ]


def needed(state: Mapping[str, bytes]) -> int | None:
    """The offset behind which the backfills that have not ended need the log; null when they need none of it.

    That is all that they told, and the changes that may have left rows that wait to be read by their keys.
    """
    unfinished = [refill for refill in Refill.of(state) if refill.finished is None]
    offsets = [refill.started - 1 for refill in unfinished if refill.started is not None]
    offsets += [part.since for refill in unfinished for part in refill.progress]
    return min(offsets, default=None)


def _progress(reached: Mapping[str, int] | None, **value: int) -> Progress:
    return Progress(reached=Reached(**reached) if reached else None, **value)
