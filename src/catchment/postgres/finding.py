"""What a preflight check looks at, and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["error", "warning", "notice", "good"]
"""``error``: it will not work; ``warning``: it works until something happens; ``notice``: so that nobody wonders."""

_MOST_NAMES = 5


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at, in the words in which it is told; the page of all checks is made of these.

    ``name`` is stable. The sentences have gaps like ``{slot}``. ``why`` is a clause that says what would happen
    otherwise; ``remedy`` begins with the SQL or the setting that mends it, and is empty where there is nothing to do.
    """

    name: str
    level: Level
    what: str
    why: str
    remedy: str = ""

    def found(self, where: str, **said: object) -> Finding:
        """The finding, with its gaps filled. ``where`` is as in our errors: ``source shop, table public.orders``."""
        what, why, remedy = (sentence.format(**said) for sentence in (self.what, self.why, self.remedy))
        return Finding(self.level, self.name, where, what, why, remedy)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found. The fields are also the keys of ``catchment check --json``."""

    level: Level
    check: str
    where: str
    what: str
    why: str
    remedy: str

    def __str__(self) -> str:
        reason = f" ({self.why})" if self.why else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.level}: {self.where}: {self.what}{reason}{remedy}"

    def to_json(self) -> dict[str, str]:
        """For programs."""
        return asdict(self)


def named(names: Sequence[str]) -> str:
    """The first few of them, as a sentence has it."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
