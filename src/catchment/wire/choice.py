"""Which twin runs. Imports nothing heavy, so that a command can refuse a wrong choice before it begins."""

from __future__ import annotations

import os
from importlib.util import find_spec

from catchment.model.errors import ConfigError

VARIABLE = "CATCHMENT_WIRE"
PYTHON, NATIVE = "python", "native"


def chosen() -> str:
    """``python`` or ``native``: what the environment says, else native where it was built.

    Raises ConfigError when it says anything else, or native where that was not built.
    """
    asked = os.environ.get(VARIABLE)
    built = find_spec("catchment.wire._native") is not None
    if asked == NATIVE and not built:
        raise ConfigError(
            f"{VARIABLE} is native, but this installation has only python",
            remedy="leave it out, or install Catchment again where there are a C compiler and Python's headers",
        )
    if asked not in (None, PYTHON, NATIVE):
        raise ConfigError(f"{VARIABLE} is neither python nor native", remedy="set it to one of them, or leave it out")
    return asked or (NATIVE if built else PYTHON)
