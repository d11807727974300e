"""Tables that fit: on a narrow terminal columns are left out rather than words cut off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

_GAP = 2
_SLOTS = 120  # of five seconds: ten minutes
_LOW_SECONDS = 2.0
_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Column:
    """A heading and a cell for each row. Where space is short the column of the highest ``rank`` goes first; 0 stays.

    ``right``: numbers. ``fill``: makes the cells for whatever width is left over, up to ``most``.
    """

    heading: str
    cells: Sequence[str | Text] = ()
    rank: int = 0
    right: bool = False
    fill: Callable[[int], Sequence[str]] | None = None
    most: int = 0

    @property
    def width(self) -> int:
        """The least it takes."""
        return max(len(self.heading), *(len(cell) for cell in self.cells), 0)


def fitted(columns: Sequence[Column], width: int) -> Table:
    """A table of what fits into this width."""
    kept = list(columns)
    while _taken(kept) > width and (last := max(kept, key=lambda column: column.rank)).rank:
        kept.remove(last)
    left = width - _taken(kept)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    cells: list[Sequence[str | Text]] = []
    for column in kept:
        # Names that fill a line by themselves are folded, not cut.
        table.add_column(column.heading, justify="right" if column.right else "left", no_wrap=left >= 0)
        cells.append(column.fill(min(column.most, column.width + left)) if column.fill else column.cells)
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    return table


def spark(history: Sequence[float | None], width: int) -> str:
    """The last of these as blocks as high as they are, the newest at the right; unknown ones are left blank.

    The highest fills the line, unless all are below two seconds: those are all low.
    """
    if not history:
        return ""
    each = -(-_SLOTS // width)
    spread = [None] * (_SLOTS - len(history)) + list(history[-_SLOTS:])
    groups = [spread[max(0, end - each) : end] for end in range(_SLOTS, 0, -each)][::-1]
    highest = [max((lag for lag in group if lag is not None), default=None) for group in groups]
    top = max((lag for lag in highest if lag is not None), default=0.0)
    scale = max(top, _LOW_SECONDS)
    return "".join(" " if lag is None else _BLOCKS[round(lag / scale * (len(_BLOCKS) - 1))] for lag in highest)


def _taken(columns: Sequence[Column]) -> int:
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1)
