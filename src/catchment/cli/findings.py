"""What ``check`` found, as people read it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import typer
from rich.console import Console
from rich.text import Text

from catchment.postgres.finding import Finding, Level, named

_STYLES = {"error": "bold red", "warning": "yellow", "good": "green", "notice": "cyan"}
_COUNTED: tuple[Level, ...] = ("error", "warning", "notice")
_ALIKE = 3
"""How many notices of one kind a terminal is shown."""


def show(findings: Sequence[Finding]) -> None:
    """On a terminal one block for each server; elsewhere one line for each finding. The gravest come first."""
    blocks: dict[str, list[Finding]] = {}
    for finding in findings:
        blocks.setdefault(finding.where.partition(",")[0], []).append(finding)
    for block in blocks.values():
        block.sort(key=lambda finding: list(_STYLES).index(finding.level))
    if not sys.stdout.isatty():
        for finding in chain.from_iterable(blocks.values()):
            typer.echo(str(finding))
        return
    console = Console(highlight=False)
    for server, block in blocks.items():
        console.print(Text(server, "bold"))
        _print_block(console, block)
    counted = Counter(finding.level for finding in findings)
    totals = ", ".join(f"{counted[level]} {level}{'' if counted[level] == 1 else 's'}" for level in _COUNTED)
    console.print(Text(totals, _STYLES["error" if counted["error"] else "good"]))


def _folded(block: Sequence[Finding]) -> list[Finding]:
    """Notices that say the same of several tables as one, in the place of the first."""
    alike: dict[tuple[str, ...], list[Finding]] = {}
    for at, finding in enumerate(block):
        same = finding.level == "notice" and finding.where.rpartition(", table ")[1] != ""
        key = (finding.check, finding.what, finding.why, finding.remedy) if same else (str(at),)
        alike.setdefault(key, []).append(finding)
    return [_together(findings) for findings in alike.values()]


def _together(findings: Sequence[Finding]) -> Finding:
    first, *others = findings
    if not others:
        return first
    place, _, _ = first.where.rpartition(", table ")
    tables = [finding.where.rpartition(", table ")[2] for finding in findings]
    return replace(first, where=f"{place}, tables {named(tables)}")


def _print_block(console: Console, block: Sequence[Finding]) -> None:
    shown: Counter[str] = Counter()
    folded = _folded(block)
    for finding in folded:
        if finding.level == "notice" and shown[finding.check] == _ALIKE:
            continue
        shown[finding.check] += 1
        _, _, place = finding.where.partition(", ")
        what = f"{place}: {finding.what}" if place else finding.what
        # Lines are never wrapped: SQL is there to be copied.
        console.print(Text.assemble("  ", (f"{finding.level:<8}", _STYLES[finding.level]), what), soft_wrap=True)
        for text, style in ((finding.why, "dim"), (finding.remedy, "")):
            if text and finding.level != "good":
                console.print(Text(f"{'':<10}{text}", style), soft_wrap=True)
    if more := len(folded) - shown.total():
        console.print(Text(f"  and {more} more notices like these; --json has them all", "dim"))
