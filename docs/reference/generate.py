"""``python docs/reference/generate.py``: writes errors.md from the tree of errors. A test compares the two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from catchment.model import errors

HEAD = """# Errors

Each is one line: where, what, remedy. Those marked *retried* mend themselves once their cause is gone; all others stop
their loop, alone, and are looked at again every 20 seconds. Generated from `catchment/model/errors.py`.

| error | | what it says | what to do, where it does not say so itself |
|---|---|---|---|
"""


def tree(kind: type[errors.CatchmentError]) -> Iterator[type[errors.CatchmentError]]:
    """The errors below this one that nothing is below of."""
    below = [each for each in kind.__subclasses__() if each.__module__ == errors.__name__]
    if not below:
        yield kind
    for each in below:
        yield from tree(each)


def render() -> str:
    """The page."""
    rows = [
        f"| `{kind.__name__}` | {'*retried*' if kind.retry else ''} | {(kind.__doc__ or '').strip().splitlines()[0]} "
        f"| {kind.default_remedy} |"
        for kind in tree(errors.CatchmentError)
    ]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("errors.md").write_text(render())
