"""Where things are in the lake."""

from __future__ import annotations

import hashlib
import re
from uuid import UUID, uuid4

from catchment.model.table import Table

FRONTIERS = "_frontier"
SHADOW = "refill-"
_PLAIN = re.compile(r"[^A-Za-z0-9_-]")
_STAMPED = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-8([0-9a-f]{3})-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_RANDOM = (1 << 62) - 1


def current_path(dataset: str, table: Table) -> str:
    """The directory of the current state. What paths may not have becomes ``!`` and its bytes in hexadecimal.

    Few other signs would do: readers of object stores encode most in one place and not in another.
    """
    return f"{dataset}/{_plain(table.schema)}.{_plain(table.name)}"


def history_path(current: str) -> str:
    """The directory of the history beside it."""
    return f"{current}.history"


def shadow_path(current: str, record: int) -> str:
    """A new directory for a refill that this record is to tell of: within that of the table, which takes its files."""
    return f"{current}/{SHADOW}{stamped(record)}"


def index_path(source: str, current: str) -> str:
    """Where the cache has the index of a table of this source, or of its refill."""
    return f"{source}/{hashlib.sha256(current.encode()).hexdigest()[:32]}"


def stamped(number: int) -> UUID:
    """A new name that says for which version of a table, or for which record, something is written.

    https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-8
    """
    return UUID(int=number >> 12 << 80 | 8 << 76 | (number & 0xFFF) << 64 | 2 << 62 | uuid4().int & _RANDOM)


def stamp(name: str) -> int | None:
    """What such a name says, alone or as a part of another; null when it is not one."""
    found = _STAMPED.search(name)
    return int(found[1] + found[2] + found[3], 16) if found else None


def _plain(name: str) -> str:
    return _PLAIN.sub(lambda found: "".join(f"!{byte:02x}" for byte in found[0].encode()), name)
