"""Which blocks of a table a cycle reads: ranges that several readers take in turn until the time is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from catchment.postgres.snapshot import Leaf, Reached

BLOCKS = 1024
"""How many a range has at most; 8 MB of PostgreSQL's usual blocks."""


@dataclass(frozen=True, slots=True)
class Range:
    """Blocks of a leaf, from ``begin`` up to but not including ``end``, of the ``blocks`` that there are to read."""

    leaf: Leaf
    begin: int
    end: int
    blocks: int


class Ranges:
    """What of a table is left to read, in order: all before a range that was handed out was handed out, too.

    ``seconds``: how long ranges are handed out; null: until none is left. ``count``: how many there are. ``reached`` is
    null when all were handed out, else the first that was not. ``another_file``: what was read before is not of the
    table any more, or the rest cannot be read in pieces, so there is nothing left of it.
    """

    def __init__(self, leaves: Sequence[Leaf], reached: Reached | None, seconds: float | None) -> None:
        self._deadline = float("inf") if seconds is None else time.monotonic() + seconds
        self._lock = threading.Lock()
        left = [_left(leaf, reached) for leaf in leaves if reached is None or leaf.oid >= reached.leaf]
        self.another_file = reached is not None and any(
            leaf.whole or (leaf.oid == reached.leaf and leaf.filenode != reached.filenode) for leaf in leaves
        )
        self.count = 0 if self.another_file else sum(map(_count, left))
        self._ranges = chain.from_iterable(map(_pieces, left)) if self.count else iter(())
        self.reached: Reached | None = None

    def __iter__(self) -> Iterator[Range]:
        """What one reader is to read; others get other ranges."""
        while (part := self._take()) is not None:
            yield part

    def _take(self) -> Range | None:
        with self._lock:
            if self.reached is not None or (part := next(self._ranges, None)) is None:
                return None
            if time.monotonic() > self._deadline and not part.leaf.whole:
                self.reached = Reached(part.leaf.oid, part.leaf.filenode, part.begin, part.blocks)
                return None
            return part


def _left(leaf: Leaf, reached: Reached | None) -> Range:
    # Blocks that a leaf got after its first cycle hold rows that the stream has brought.
    if reached is not None and leaf.oid == reached.leaf:
        return Range(leaf, reached.block, reached.blocks, reached.blocks)
    return Range(leaf, 0, leaf.blocks, leaf.blocks)


def _count(left: Range) -> int:
    return 1 if left.leaf.whole else -(-(left.end - left.begin) // BLOCKS)


def _pieces(left: Range) -> Iterator[Range]:
    if left.leaf.whole:
        yield left
        return
    for block in range(left.begin, left.end, BLOCKS):
        yield replace(left, begin=block, end=min(block + BLOCKS, left.end))
