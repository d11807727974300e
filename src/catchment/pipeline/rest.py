"""How long to rest: loops that have nothing to do wake together."""

from __future__ import annotations

import math
import time

TOGETHER_SECONDS = 0.25


def rest(seconds: float) -> float:
    """So many seconds, and on to the next quarter of one by the machine's clock, which all of its processes share.

    To wake a machine that is at rest can cost it more than what is then done: a virtual one took 1.6 ms for a program
    that woke four times a second and did nothing, and 0.1 ms where it did so a hundred times a second.
    """
    now = time.monotonic()
    return math.ceil((now + seconds) / TOGETHER_SECONDS) * TOGETHER_SECONDS - now
