"""``${NAME}`` in a setting; in a dsn so that what a variable holds is one value whatever is in it.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote

_NAME = r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}"
_VARIABLE = re.compile(_NAME)
_VALUE = re.compile(r"=\s*('(?:\\.|[^'\\])*'|(?:\\.|[^\s'\\])(?:\\.|[^\s\\])*)", re.DOTALL)
_PIECE = re.compile(rf"\\(.)|{_NAME}|(.)", re.DOTALL)
_URI = ("postgresql://", "postgres://")


def expanded(dsn: str, value_of: Callable[[str], str]) -> str:
    """The dsn with its variables put in.

    In a URI they are percent-encoded, in a value of a keyword/value string quoted. What stands elsewhere is put in as
    it is, so that a variable may as well hold a whole dsn, or several keywords with their values.
    """
    beginning = _VARIABLE.match(dsn)
    begins = value_of(beginning[1]) if beginning else ""
    rest = dsn[beginning.end() :] if beginning else dsn
    if (begins + rest).startswith(_URI):
        return begins + _VARIABLE.sub(lambda found: quote(value_of(found[1]), safe=""), rest)
    parts, end = [begins], 0
    for found in _VALUE.finditer(rest):
        parts.append(put_in(rest[end : found.start()], value_of))
        parts.append(f"={_quoted(found[1], value_of)}" if _VARIABLE.search(found[1]) else found[0])
        end = found.end()
    return "".join([*parts, put_in(rest[end:], value_of)])


def put_in(text: str, value_of: Callable[[str], str]) -> str:
    """The text with its variables put in as they are."""
    return _VARIABLE.sub(lambda found: value_of(found[1]), text)


def _quoted(written: str, value_of: Callable[[str], str]) -> str:
    """A value as it is written, in quotes or not, as libpq reads it with the variables in it."""
    inside = written[1:-1] if written.startswith("'") else written
    meant = "".join(value_of(piece[2]) if piece[2] else piece[1] or piece[3] for piece in _PIECE.finditer(inside))
    return "'" + re.sub(r"(['\\])", r"\\\1", meant) + "'"
