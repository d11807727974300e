"""A bell that wakes a loop which sleeps on its socket."""

from __future__ import annotations

import os
from contextlib import suppress


class Bell:
    """Rung by any thread, heard by one. It lives as long as the process."""

    def __init__(self) -> None:
        self._heard, self._rope = os.pipe()
        os.set_blocking(self._heard, False)
        os.set_blocking(self._rope, False)
        self._rung = False

    def fileno(self) -> int:
        """What to poll: readable once it has rung, until ``hush``."""
        return self._heard

    def ring(self) -> None:
        """End the sleep of the loop, or the next one when it does not sleep."""
        self._rung = True
        with suppress(BlockingIOError):  # it was rung very often, and nobody was there
            os.write(self._rope, b"!")

    def hush(self) -> None:
        """The sleep has ended."""
        with suppress(BlockingIOError):
            os.read(self._heard, 4096)

    def has_rung(self) -> bool:
        """Whether it was rung since this was last asked."""
        rung, self._rung = self._rung, False
        return rung
