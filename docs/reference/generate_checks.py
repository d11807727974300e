"""``python docs/reference/generate_checks.py``: writes checks.md from the checks. A test compares the two."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from catchment.postgres.finding import Check
from catchment.postgres.preflight import (
    faults,
    identity,
    publication,
    report,
    server,
    slot,
    tables,
    together,
    transactions,
)
from catchment.targets.lake import preflight as lake
from catchment.targets.ods import preflight as ods

SOURCES = (report, server, faults, slot, transactions, publication, tables, identity, together)

HEAD = """# Checks

What `catchment check` looks at. Each finding is one line: level, where, what, why it matters, and the SQL or the
setting that mends it. A terminal shows them in blocks; `--json` is an array of objects with `level`, `check` (the name
below), `where`, `what`, `why` and `remedy`. The exit status is 1 when there is an error, 2 when `catchment.toml` or a
dsn in it cannot be read, else 0.

An *error* stops a source or the ODS; a *warning* works until something happens; a *notice* is good to know. Sources are
looked at each on its own, as the role that the dsn names; `source NAME` and the table stand before each sentence. Words
in braces are filled in. Generated from the checks themselves.
"""
TABLE = """
| check | level | what it says | why it matters | what mends it |
|---|---|---|---|---|
"""
FAULTS = """
## Faults of minor releases

What `minor_version` knows of, from the [release notes](https://www.postgresql.org/docs/release/).

| what goes wrong | mended in |
|---|---|
"""


def checks(module: ModuleType) -> list[Check]:
    """What a module looks at, in the order in which it says so."""
    return [value for value in vars(module).values() if isinstance(value, Check)]


def rows(found: list[Check]) -> str:
    """One row for each check."""
    cells = ((f"`{each.name}`", each.level, each.what, each.why, each.remedy) for each in found)
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in cells) + "\n"


def render() -> str:
    """The page."""
    of_sources = [check for module in SOURCES for check in checks(module)]
    known = (
        f"| {fault.what} | {', '.join(f'{major}.{minor}' for major, minor in sorted(fault.fixed.items()))} |\n"
        for fault in faults.KNOWN
    )
    sections = {"Sources": of_sources, "ODS": checks(ods), "Lake": checks(lake)}
    told = "".join(f"\n## {name}\n{TABLE}{rows(found)}" for name, found in sections.items())
    return f"{HEAD}{told}{FAULTS}{''.join(known)}"


if __name__ == "__main__":
    Path(__file__).with_name("checks.md").write_text(render())
