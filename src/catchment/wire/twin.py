"""The twin that runs here. Importing it raises ConfigError when the environment chooses one that there is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catchment.wire.choice import PYTHON, chosen

if TYPE_CHECKING or chosen() == PYTHON:
    from catchment.wire.copytext import parse, render
    from catchment.wire.parts import Messages, joined, pack, unpack
    from catchment.wire.pgoutput import Decoder, kinds
else:
    from catchment.wire.native import Decoder, Messages, joined, kinds, pack, parse, render, unpack

__all__ = ["Decoder", "Messages", "joined", "kinds", "pack", "parse", "render", "unpack"]
