"""Scripts for psql, taken apart into what it runs one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""--[^\n]* | /\*.*?\*/ | \be'(?:\\.|''|[^'\\])*' | '(?:''|[^'])*' | "(?:""|[^"])*" | (?P<quote>\$(?:[a-z_]\w*)?\$)
    .*?(?P=quote) | (?P<meta>\\[^\n]*\n?) | (?P<open>\() | (?P<close>\)) | (?P<end>;) | (?P<word>\w[\w$]*)""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_COPY = re.compile(r"\s*copy\b.*\bfrom\s+stdin\b", re.DOTALL | re.IGNORECASE)
_SENDS = ("\\g", "\\crosstabview", "\\bind", "\\watch", "\\parse", "\\close")
_ROUTINE = re.compile(r"create\s+(or\s+replace\s+)?(function|procedure)", re.IGNORECASE)


def statements(script: str) -> Iterator[str]:
    """The pieces of a psql script, each of them one statement with the data that it reads, or a meta-command."""
    start = at = depth = blocks = 0
    while found := _TOKEN.search(script, at):
        at, end = found.end(), 0
        match found.lastgroup:
            case "meta" if found[0].startswith(_SENDS) or not script[start : found.start()].strip():
                end = at
            case "open":
                depth += 1
            case "close":
                depth -= 1
            case "word" if _ROUTINE.search(script, start, found.start()):
                word = found[0].lower()
                blocks += (word == "begin" or (blocks > 0 and word == "case")) - (blocks > 0 and word == "end")
            case "end" if depth <= 0 and not blocks:
                end = at
                if _COPY.match(script, start, at) and (
                    data := re.compile(r"^\\\.\s*$", re.MULTILINE).search(script, at)
                ):
                    end = data.end() + 1
        if end:
            yield script[start:end]
            start = at = end
            depth = 0
    if script[start:].strip():
        yield script[start:]
