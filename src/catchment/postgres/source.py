"""Where a source is."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Source:
    """A source as configured: how to reach its database, what it publishes and which slot is ours.

    ``readers``: how many connections read one table of it at the same time.
    """

    name: str
    dsn: str = field(repr=False)
    publication: str = "catchment"
    slot: str = ""
    readers: int = 1
