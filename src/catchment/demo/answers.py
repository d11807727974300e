"""Questions that no single service can answer, asked of the ODS.

Schemas ``orders``, ``payments`` and ``shipping`` are the services' own tables, rebuilt side by side: a join is all it
takes. Each service is followed on its own, so an order may show in one of them a moment before the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import LiteralString, TypeVar

import psycopg
from psycopg.rows import class_row

from catchment.model.errors import TargetUnreachable

Row = TypeVar("Row")

PAID_NOT_SHIPPED = """
SELECT count(*) AS orders, sum(payment.amount) AS amount, now() - min(payment.received_at) AS longest
FROM orders.orders AS placed
JOIN (SELECT order_id, sum(amount) AS amount, min(received_at) AS received_at
      FROM payments.payments WHERE status = 'captured' GROUP BY order_id) AS payment ON payment.order_id = placed.id
LEFT JOIN shipping.parcels AS parcel ON parcel.order_id = placed.id
WHERE placed.status <> 'cancelled' AND parcel.shipped_at IS NULL
"""

SHIPPED_NOT_PAID = """
SELECT count(*) AS orders, sum(placed.total) AS amount, now() - min(parcel.shipped_at) AS longest
FROM shipping.parcels AS parcel
JOIN orders.orders AS placed ON placed.id = parcel.order_id
WHERE parcel.shipped_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM payments.payments WHERE order_id = placed.id)
"""

PAID_TWICE = """
SELECT count(*) AS orders, sum(payment.amount - placed.total) AS amount, now() - min(payment.received_at) AS longest
FROM (SELECT order_id, sum(amount) AS amount, max(received_at) AS received_at
      FROM payments.payments WHERE status = 'captured' GROUP BY order_id HAVING count(*) > 1) AS payment
JOIN orders.orders AS placed ON placed.id = payment.order_id
"""

RETURNED_NOT_REFUNDED = """
SELECT count(*) AS orders, sum(payment.amount) AS amount, now() - min(seen.happened_at) AS longest
FROM shipping.tracking AS seen
JOIN shipping.parcels AS parcel ON parcel.id = seen.parcel_id
JOIN payments.payments AS payment ON payment.order_id = parcel.order_id
WHERE seen.status = 'returned' AND payment.status = 'captured'
"""

REVENUE_BY_COUNTRY = """
SELECT customer.country,
       count(DISTINCT payment.order_id) AS orders,
       sum(payment.amount) - coalesce(sum(refund.amount), 0) AS revenue,
       coalesce(sum(refund.amount), 0) AS refunded
FROM payments.payments AS payment
LEFT JOIN payments.refunds AS refund ON refund.payment_id = payment.id
JOIN orders.orders AS placed ON placed.id = payment.order_id
JOIN orders.customers AS customer ON customer.id = placed.customer_id
GROUP BY customer.country
ORDER BY revenue DESC
"""

ORDER_TO_DELIVERY = """
SELECT carrier.name AS carrier,
       count(*) AS orders,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY parcel.delivered_at - placed.placed_at) AS median,
       percentile_cont(0.9) WITHIN GROUP (ORDER BY parcel.delivered_at - placed.placed_at) AS nine_in_ten
FROM shipping.parcels AS parcel
JOIN shipping.carriers AS carrier ON carrier.id = parcel.carrier_id
JOIN orders.orders AS placed ON placed.id = parcel.order_id
WHERE parcel.delivered_at IS NOT NULL
GROUP BY carrier.name
ORDER BY median
"""


@dataclass(frozen=True, slots=True)
class Concern:
    """Orders that somebody should look at: how many, about how much money, and how long the oldest has waited."""

    orders: int
    amount: Decimal | None
    longest: timedelta | None


@dataclass(frozen=True, slots=True)
class Revenue:
    """What customers in a country paid, in euros, less what they got back."""

    country: str
    orders: int
    revenue: Decimal
    refunded: Decimal


@dataclass(frozen=True, slots=True)
class Delivery:
    """From the click to the doorbell: half of a carrier's parcels took at most ``median``, 90 % ``nine_in_ten``."""

    carrier: str
    orders: int
    median: timedelta
    nine_in_ten: timedelta


@dataclass(frozen=True, slots=True)
class Answers:
    """All of them, as of one moment in the ODS."""

    concerns: dict[str, Concern]
    revenue: list[Revenue]
    delivery: list[Delivery]


CONCERNS = {
    "paid, not shipped": PAID_NOT_SHIPPED,
    "shipped, not paid": SHIPPED_NOT_PAID,
    "paid twice": PAID_TWICE,
    "returned, not refunded": RETURNED_NOT_REFUNDED,
}


@contextmanager
def connected(dsn: str) -> Iterator[psycopg.Connection]:
    """A connection to ask the questions on. Raises TargetUnreachable."""
    with _translated():
        connection = psycopg.connect(dsn, autocommit=True, options="-c jit=off")
    with connection:
        yield connection


def ask(ods: psycopg.Connection) -> Answers | None:
    """All questions, within one snapshot; null while the first load is under way. Raises TargetUnreachable."""
    try:
        with _translated(), ods.transaction():
            ods.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            return Answers(
                concerns={name: _rows(ods, Concern, question)[0] for name, question in CONCERNS.items()},
                revenue=_rows(ods, Revenue, REVENUE_BY_COUNTRY),
                delivery=_rows(ods, Delivery, ORDER_TO_DELIVERY),
            )
    except psycopg.errors.UndefinedTable:
        return None


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        raise TargetUnreachable(f"the ODS gives no answers: {error}") from error


def _rows(ods: psycopg.Connection, kind: type[Row], question: LiteralString) -> list[Row]:
    return ods.cursor(row_factory=class_row(kind)).execute(question).fetchall()
