"""The shape of a source's table, as one version of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self


class ReplicaIdentity(StrEnum):
    """What PostgreSQL sends of a row before it was updated or deleted.

    https://www.postgresql.org/docs/current/sql-altertable.html#SQL-ALTERTABLE-REPLICA-IDENTITY
    The values are those of ``pg_class.relreplident`` and of the protocol's Relation message.
    """

    DEFAULT = "d"
    INDEX = "i"
    FULL = "f"
    NOTHING = "n"


@dataclass(frozen=True, slots=True)
class Column:
    """One published column. ``number`` is its ``attnum``, which survives a rename.

    The type is the one that stores the value: of a domain, its base type. ``type_extension`` names the extension
    that owns the type, since its schema differs from server to server; null for all other types. ``missing``: what rows
    from before the column was added have in it, as PostgreSQL prints it; null for NULL. It says nothing of a column
    that was always there.
    """

    number: int
    name: str
    type_schema: str
    type_name: str
    typmod: int
    nullable: bool
    type_extension: str | None = None
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """One version of a table's shape; a new shape is a new ``Table`` with the next ``version``.

    ``key`` names the columns that find a row: the replica identity's for DEFAULT and INDEX; for FULL the primary key
    unless it is deferrable, else none. A table without a key is a bag of rows.
    """

    oid: int
    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    identity: ReplicaIdentity
    filenode: int
    version: int = 1

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def key_positions(self) -> tuple[int, ...]:
        """Where the key's columns stand in ``columns``."""
        names = [column.name for column in self.columns]
        return tuple(names.index(name) for name in self.key)

    def to_json(self) -> dict[str, Any]:
        """A value that ``json.dumps`` takes and ``from_json`` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Read what ``to_json`` made."""
        return cls(
            oid=value["oid"],
            schema=value["schema"],
            name=value["name"],
            columns=tuple(Column(**column) for column in value["columns"]),
            key=tuple(value["key"]),
            identity=ReplicaIdentity(value["identity"]),
            filenode=value["filenode"],
            version=value["version"],
        )
