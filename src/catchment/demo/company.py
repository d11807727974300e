"""A small company on this machine: a shop with customers and orders, and a warehouse for the ODS."""

from __future__ import annotations

import random
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from catchment.demo.cluster import Cluster
from catchment.demo.scratch import scratch_directory

SOURCE = "shop"
TABLES = ("customers", "orders", "lines")

_PAUSE_SECONDS = 0.02  # between two transactions: some 50 a second
_CUSTOMERS = 1000

_SHOP = """
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, since timestamptz NOT NULL DEFAULT now());
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int NOT NULL REFERENCES customers,
    state text NOT NULL DEFAULT 'placed', placed_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE lines (
    "order" bigint REFERENCES orders ON DELETE CASCADE, number int, article text NOT NULL,
    price numeric(10, 2) NOT NULL,
    PRIMARY KEY ("order", number));
INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, {customers}) AS n;
CREATE PUBLICATION catchment FOR TABLE customers, orders, lines;
"""

_PLACE = """
WITH placed AS (INSERT INTO orders (customer) VALUES (%(customer)s) RETURNING id)
INSERT INTO lines SELECT id, n, 'article ' || n, n * 9.99 FROM placed, generate_series(1, %(lines)s) AS n
"""
_ADVANCE = """
UPDATE orders SET state = CASE state WHEN 'placed' THEN 'paid' ELSE 'shipped' END
WHERE id IN (SELECT id FROM orders WHERE state <> 'shipped' ORDER BY id LIMIT 1)
"""
_CANCEL = "DELETE FROM orders WHERE id IN (SELECT id FROM orders WHERE state = 'placed' ORDER BY id DESC LIMIT 1)"


class Company:
    """Servers, their data and a catchment.toml, all of them gone when the block ends.

    ``config`` is the catchment.toml. Raises ConfigError when there is no PostgreSQL on this machine.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._shop = Cluster(settings={"fsync": "off"})
        self._warehouse = Cluster(settings={"fsync": "off"})
        self._ending = threading.Event()
        self.config = scratch_directory() / "catchment.toml"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for cluster in (self._shop, self._warehouse):
                stack.enter_context(cluster)
            with psycopg.connect(self._shop.dsn()) as connection:
                connection.execute(_SHOP.format(customers=_CUSTOMERS))
            self.config.write_text(
                f'[[source]]\nname = "{SOURCE}"\ndsn = "{self._shop.dsn()}"\n\n[ods]\ndsn = "{self._warehouse.dsn()}"\n'
            )
            traffic = threading.Thread(target=self._trade, name="traffic")
            traffic.start()
            stack.callback(traffic.join)
            stack.callback(self._ending.set)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def directory(self) -> Path:
        """Where there is room for files that go with the company."""
        return self.config.parent

    def counts(self) -> dict[str, tuple[int, int | None]]:
        """Rows of each table in the shop and in the ODS; null where it is not there yet."""
        with psycopg.connect(self._shop.dsn()) as shop, psycopg.connect(self._warehouse.dsn()) as warehouse:
            return {table: (_count(shop, "public", table) or 0, _count(warehouse, SOURCE, table)) for table in TABLES}

    def _trade(self) -> None:
        with psycopg.connect(self._shop.dsn(), autocommit=True) as connection:
            while not self._ending.wait(_PAUSE_SECONDS):
                kind = random.random()  # noqa: S311 -- nothing secret
                if kind < 0.5:
                    customer, lines = random.randint(1, _CUSTOMERS), random.randint(1, 5)  # noqa: S311
                    connection.execute(_PLACE, {"customer": customer, "lines": lines})
                else:
                    connection.execute(_ADVANCE if kind < 0.95 else _CANCEL)


def _count(connection: psycopg.Connection, schema: str, table: str) -> int | None:
    name = sql.Identifier(schema, table)
    (there,) = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (name.as_string(None),)).fetchone() or (False,)
    if not there:
        return None
    (count,) = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone() or (0,)
    return int(count)
