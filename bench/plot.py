"""How far each figure is from what is aimed at, as a picture: one bar for each, 1 is the aim."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

# Which value of which measurement, what is aimed at, and whether more is better.
AIMS = (
    ("capture", "usual: ratio", 0.95, True),
    ("capture", "narrow: ratio", 0.85, True),
    ("capture", "wide: ratio", 0.85, True),
    ("capture", "updates: ratio", 0.85, True),
    ("capture", "deletes: ratio", 0.85, True),
    ("capture", "single: ratio", 0.85, True),
    ("capture", "large: ratio", 0.85, True),
    ("capture", "eight: ratio", 0.85, True),
    ("capture", "usual: catchment, CPU µs per change", 3.0, False),
    ("capture", "usual: times debezium's rate", 4.0, True),
    ("capture", "usual: times less CPU than debezium", 8.0, True),
    ("subscription", "small, sustained: ratio", 1.0, True),
    ("subscription", "small, backlog: ratio", 1.5, True),
    ("subscription", "large, backlog: ratio", 1.5, True),
    ("backfill", "ratio of one stream", 0.9, True),
    ("backfill", "rows into the log for a second of CPU", 600_000.0, True),
    ("backfill", "ratio of COPY | COPY", 0.5, True),
    ("memory", "at most, MB", 500.0, False),
    ("idle", "per cent of a core", 5.0, False),
    ("idle", "memory, MB", 500.0, False),
    ("lake", "rows: s a commit", 0.5, False),
    ("lake", "more rows beside fewer", 1.5, False),
    ("lake", "more: MB to load", 1000.0, False),
    ("lake", "few: read beside freshly written", 2.0, False),
)
_ROW, _LEFT, _ONE, _WIDTH, _MOST = 22, 380, 180, 900, 2.5


def draw(results: Mapping[str, Mapping[str, Any]]) -> str:
    """An SVG. What was not measured is left out."""
    bars = [
        (f"{name}: {what}", values[what], aim, values[what] / aim if more else aim / values[what])
        for name, what, aim, more in AIMS
        if what in (values := results.get(name, {}).get("values", {}))
    ]
    height = (len(bars) + 1) * _ROW
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"',
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, (what, value, aim, reached) in enumerate(bars):
        top = number * _ROW + 8
        colour = "#2a9d5c" if reached >= 1 else "#d98e04"
        length = min(reached, _MOST) * _ONE
        drawn += [
            f'<text x="{_LEFT - 8}" y="{top + 12}" text-anchor="end">{escape(what)}</text>',
            f'<rect x="{_LEFT}" y="{top}" width="{length:.0f}" height="{_ROW - 6}" fill="{colour}"/>',
            f'<text x="{_LEFT + length + 6:.0f}" y="{top + 12}">{value:,.4g} (aim {aim:,.4g})</text>',
        ]
    line = _LEFT + _ONE
    drawn.append(f'<line x1="{line}" x2="{line}" y1="0" y2="{height}" stroke="black" stroke-dasharray="3 3"/>')
    return "\n".join([*drawn, "</svg>"]) + "\n"
