"""What each step of an order writes: one transaction in every service that it concerns.

The services know of each other's rows by the order's number only, as they would from messages or calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from catchment.demo.assortment import country
from catchment.demo.life import Life, Step


@dataclass(frozen=True, slots=True)
class Transaction:
    """These statements, together, in that service. They take what ``facts`` says of the order."""

    service: str
    statements: tuple[str, ...]


def facts(life: Life) -> Mapping[str, Any]:
    """What the statements know of an order; its number, ``order``, is not known before it is placed."""
    home = country(life.customer)
    return {
        "customer": life.customer,
        "country": home,
        "total": life.total,
        "numbers": list(range(1, len(life.lines) + 1)),
        "skus": [line.article.sku for line in life.lines],
        "quantities": [line.quantity for line in life.lines],
        "method": life.method,
        "warehouse": life.warehouse,
        "carrier": life.carrier,
        "kilograms": life.kilograms,
        "label": Jsonb({"to": home, "pieces": life.pieces}),
    }


PLACE = "INSERT INTO orders (customer_id, total) VALUES (%(customer)s, %(total)s) RETURNING id"
PLACE_LINES = """
    INSERT INTO order_lines (order_id, number, sku, quantity, price)
    SELECT %(order)s, number, sku, quantity, price
    FROM unnest(%(numbers)s::int[], %(skus)s::text[], %(quantities)s::int[]) AS line (number, sku, quantity)
    JOIN articles USING (sku)
    """

_PAY = """
    INSERT INTO payments (order_id, method, amount, fee, details)
    VALUES (%(order)s, %(method)s, %(total)s, round(%(total)s * 0.0145 + 0.25, 4),
            jsonb_build_object('reference', format('R-%%s', %(order)s::bigint)))
    """
_REFUND = """
    WITH refunded AS (
        UPDATE payments SET status = 'refunded'
        WHERE id = (SELECT max(id) FROM payments WHERE order_id = %(order)s)
        RETURNING id, amount, (SELECT count(*) FROM payments WHERE order_id = %(order)s) AS payments
    )
    INSERT INTO refunds (payment_id, amount, reason)
    SELECT id, amount, CASE WHEN payments > 1 THEN 'paid twice' ELSE 'taken back' END FROM refunded
    """
_QUEUE = """
    INSERT INTO picking_queue (order_id, warehouse_id) SELECT %(order)s, %(warehouse)s
    WHERE NOT EXISTS (SELECT FROM parcels WHERE order_id = %(order)s)
    """
_UNQUEUE = "DELETE FROM picking_queue WHERE order_id = %(order)s"
_PACK = """
    INSERT INTO parcels (order_id, warehouse_id, carrier_id, kilograms, label)
    VALUES (%(order)s, %(warehouse)s, %(carrier)s, %(kilograms)s, %(label)s)
    """
_PICK_UP = "UPDATE parcels SET status = 'shipped', shipped_at = now() WHERE order_id = %(order)s"
_HAND_OVER = "UPDATE parcels SET status = 'delivered', delivered_at = now() WHERE order_id = %(order)s"
_TAKE_BACK = "UPDATE parcels SET status = 'returned' WHERE order_id = %(order)s"
_TRACK = """
    INSERT INTO tracking (parcel_id, status, place)
    SELECT id, status, CASE status WHEN 'delivered' THEN %(country)s ELSE
               (SELECT city FROM warehouses WHERE warehouses.id = warehouse_id) END
    FROM parcels WHERE order_id = %(order)s
    """


def _orders(status: str, before: Sequence[str]) -> Transaction:
    """The orders service hears of it, unless it has heard of something later already."""
    known = ", ".join(f"'{earlier}'" for earlier in before)
    statement = (
        f"UPDATE orders SET status = '{status}', changed_at = now() WHERE id = %(order)s AND status IN ({known})"
    )
    return Transaction("orders", (statement,))


TRANSACTIONS: Mapping[Step, tuple[Transaction, ...]] = {
    Step.PAID: (
        Transaction("payments", (_PAY,)),
        _orders("paid", before=["placed"]),
        Transaction("shipping", (_QUEUE,)),
    ),
    Step.PAID_AGAIN: (Transaction("payments", (_PAY,)),),
    Step.PACKED: (Transaction("shipping", (_UNQUEUE, _PACK, _TRACK)),),
    Step.SHIPPED: (Transaction("shipping", (_PICK_UP, _TRACK)), _orders("shipped", before=["placed", "paid"])),
    Step.DELIVERED: (Transaction("shipping", (_HAND_OVER, _TRACK)), _orders("delivered", before=["shipped"])),
    Step.CANCELLED: (
        _orders("cancelled", before=["placed", "paid"]),
        Transaction("shipping", (_UNQUEUE,)),
    ),
    Step.RETURNED: (Transaction("shipping", (_TAKE_BACK, _TRACK)), _orders("returned", before=["delivered"])),
    Step.REFUNDED: (Transaction("payments", (_REFUND,)),),
}
