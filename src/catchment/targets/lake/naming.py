"""Where things are in the lake."""

from __future__ import annotations

import re
from uuid import uuid4

from catchment.model.table import Table

FRONTIERS = "_frontier"
_PLAIN = re.compile(r"[^A-Za-z0-9_-]")


def current_path(dataset: str, table: Table) -> str:
    """The directory of the current state. What paths may not have becomes ``!`` and its bytes in hexadecimal.

    Few other signs would do: readers of object stores encode most in one place and not in another.
    """
    return f"{dataset}/{_plain(table.schema)}.{_plain(table.name)}"


def history_path(current: str) -> str:
    """The directory of the history beside it."""
    return f"{current}.history"


def shadow_path(current: str) -> str:
    """A new directory for a refill: within that of the table, which takes over its files."""
    return f"{current}/_refill-{uuid4().hex}"


def _plain(name: str) -> str:
    return _PLAIN.sub(lambda found: "".join(f"!{byte:02x}" for byte in found[0].encode()), name)
