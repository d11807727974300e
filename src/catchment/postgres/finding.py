"""What a preflight check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``error``: it will not work; ``warning``: it works, and one should know.

    ``where`` and ``what`` as in our errors; ``remedy`` is the SQL or the setting, empty when there is nothing to do.
    """

    level: Literal["error", "warning", "good"]
    where: str
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        sentence = f"{self.level}: {self.where}: {self.what}"
        return f"{sentence}; {self.remedy}" if self.remedy else sentence
