"""The messages of pgoutput that are not rows.

https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

from __future__ import annotations

from dataclasses import dataclass

from catchment.model.batch import Place
from catchment.model.table import ReplicaIdentity


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """A published column as the stream describes it. ``in_key``: part of the replica identity."""

    name: str
    type_oid: int
    typmod: int
    in_key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """The shape of the rows of one table that follow."""

    oid: int
    schema: str
    name: str
    identity: ReplicaIdentity
    columns: tuple[RelationColumn, ...]


@dataclass(frozen=True, slots=True)
class Truncate:
    """TRUNCATE of the tables with these oids."""

    oids: tuple[int, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class LogicalMessage:
    """What ``pg_logical_emit_message`` wrote. One that is not transactional stands between transactions."""

    prefix: str
    content: bytes
    transactional: bool
    place: Place


Control = Relation | Truncate | LogicalMessage
