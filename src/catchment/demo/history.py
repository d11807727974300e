"""Six weeks in which the company went about its business before anybody looked.

The past is drawn once and told to every service; each makes its own rows of it, table by table, with the SQL that
stands beside its schema.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

import psycopg
from psycopg.types.json import Jsonb

from catchment.demo.assortment import ARTICLES, COUNTRIES, CUSTOMERS, FIRST_NAMES, LAST_NAMES, country
from catchment.demo.life import THEN, Life, Planned, Step, lives
from catchment.demo.services import history as history_of

ORDERS = 10_000

_SPAN = timedelta(weeks=6).total_seconds()
_GROWTH = 0.8  # less than 1: there are more orders a day towards the end
_CATCHING_UP = 1800.0  # what was under way goes on so many times as fast as it would: an hour takes two seconds

_CUSTOMERS = """
INSERT INTO customers (name, email, country, preferences, created_at)
SELECT concat_ws(' ', first, last), format('%%s.%%s@example.org', lower(first), n), country,
       jsonb_build_object('language', lower(country), 'newsletter', n %% 3 = 0), now() - n %% 900 * interval '1 day'
FROM generate_series(1, %(customers)s) AS n, LATERAL (SELECT
       (%(first_names)s::text[])[1 + n %% cardinality(%(first_names)s::text[])] AS first,
       (%(last_names)s::text[])[1 + n * 7 %% cardinality(%(last_names)s::text[])] AS last,
       (%(countries)s::text[])[1 + n %% cardinality(%(countries)s::text[])] AS country) AS person
"""
_ARTICLES = "INSERT INTO articles (sku, name, price, attributes) VALUES (%s, %s, %s / 100.0, %s)"

# The columns from paid_at on are the steps, in the order in which Step names them.
_PAST = """
CREATE TEMPORARY TABLE past (
    id bigint PRIMARY KEY, customer_id bigint, country text, total numeric, pieces int, kilograms numeric, method text,
    warehouse_id text, carrier_id text, placed_at timestamptz, paid_at timestamptz, paid_again_at timestamptz,
    packed_at timestamptz, shipped_at timestamptz, delivered_at timestamptz, cancelled_at timestamptz,
    returned_at timestamptz, refunded_at timestamptz);
CREATE TEMPORARY TABLE past_lines (order_id bigint, number int, sku text, quantity int, price numeric);
"""


@dataclass(frozen=True, slots=True)
class History:
    """The rows of ``past`` and ``past_lines`` as COPY text, and what is still to happen to these orders."""

    orders: str
    lines: str
    ahead: tuple[Planned, ...]


def draw(seed: int, now: datetime) -> History:
    """The past as seen from ``now``: what happens is the seed's affair, when it happened is told back from now."""
    chance = random.Random(f"{seed} history")  # noqa: S311 -- nothing secret
    orders: list[str] = []
    lines: list[str] = []
    ahead: list[Planned] = []
    for order, life in enumerate(islice(lives(f"{seed} past", THEN), ORDERS), start=1):
        age = _SPAN * (1 - ((order - chance.random()) / ORDERS) ** _GROWTH)
        orders.append(_past(order, life, now.timestamp() - age, age))
        lines += (
            f"{order}\t{number}\t{line.article.sku}\t{line.quantity}\t{line.article.cents / 100:.2f}\n"
            for number, line in enumerate(life.lines, start=1)
        )
        ahead += (
            Planned((after - age) / _CATCHING_UP, order, step, life)
            for step, after in life.steps.items()
            if after > age
        )
    return History("".join(orders), "".join(lines), tuple(ahead))


def fill(connection: psycopg.Connection, service: str, history: History) -> None:
    """Give this service what it knows of the past, and of customers and articles if these are its."""
    if service == "orders":
        names = {"first_names": FIRST_NAMES, "last_names": LAST_NAMES, "countries": list(COUNTRIES)}
        connection.execute(_CUSTOMERS, {"customers": CUSTOMERS, **names})
        articles = [(article.sku, article.name, article.cents, Jsonb(article.attributes)) for article in ARTICLES]
        connection.cursor().executemany(_ARTICLES, articles)
    connection.execute(_PAST)
    for table, rows in (("past", history.orders), ("past_lines", history.lines)):
        with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            copy.write(rows)
    connection.execute("ANALYZE past")
    connection.execute(history_of(service))
    connection.execute("DROP TABLE past, past_lines")
    connection.execute("ANALYZE")


def _past(order: int, life: Life, placed: float, age: float) -> str:
    """One line for ``past``; times are seconds since 1970."""
    known = (life.customer, country(life.customer), life.total, life.pieces, life.kilograms)
    decided = (life.method, life.warehouse, life.carrier)
    times = (life.steps.get(step) for step in Step)
    happened = (_instant(placed + after) if after is not None and after <= age else r"\N" for after in times)
    return "\t".join(map(str, (order, *known, *decided, _instant(placed), *happened))) + "\n"


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
