"""The answers as people read them."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from rich.columns import Columns
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from catchment.demo.answers import Answers, Concern, Delivery, Revenue

_COUNTRIES = 5  # have a line each; the others share one


def drawn(answers: Answers | None) -> list[RenderableType]:
    """Tables, side by side where there is room; a sentence while there are none."""
    if answers is None:
        return [Text("what no single service can answer is answered here after the first load")]
    tables = (_concerns(answers.concerns), _delivery(answers.delivery), _revenue(answers.revenue))
    return [Text("what no single service can answer, asked of the ODS:"), Columns(tables, padding=(0, 4))]


def _concerns(concerns: dict[str, Concern]) -> Table:
    table = _table("TO LOOK AT", ">ORDERS", ">EUROS", ">LONGEST")
    for name, concern in concerns.items():
        longest = _duration(concern.longest) if concern.longest else ""
        table.add_row(name, f"{concern.orders:,}", _money(concern.amount or Decimal()), longest)
    return table


def _delivery(deliveries: list[Delivery]) -> Table:
    table = _table("DELIVERED BY", ">ORDERS", ">MEDIAN", ">9 IN 10")
    for delivery in deliveries:
        median, nine_in_ten = _duration(delivery.median), _duration(delivery.nine_in_ten)
        table.add_row(delivery.carrier, f"{delivery.orders:,}", median, nine_in_ten)
    return table


def _revenue(revenues: list[Revenue]) -> Table:
    table = _table("REVENUE FROM", ">ORDERS", ">EUROS", ">REFUNDED")
    for one in [*revenues[:_COUNTRIES], *_together("others", revenues[_COUNTRIES:])]:
        table.add_row(one.country, f"{one.orders:,}", _money(one.revenue), _money(one.refunded))
    return table


def _together(name: str, revenues: list[Revenue]) -> list[Revenue]:
    if not revenues:
        return []
    orders = sum(one.orders for one in revenues)
    revenue = sum((one.revenue for one in revenues), Decimal())
    return [Revenue(name, orders, revenue, sum((one.refunded for one in revenues), Decimal()))]


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading.lstrip(">"), justify="right" if heading.startswith(">") else "left", no_wrap=True)
    return table


def _money(euros: Decimal) -> str:
    return f"{euros:,.0f}"


def _duration(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
