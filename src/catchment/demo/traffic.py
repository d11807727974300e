"""Live traffic: orders are placed, and everything that is due happens to them."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count

import psycopg

from catchment.demo.life import NOW, Life, Planned, lives
from catchment.demo.transactions import PLACE, PLACE_LINES, TRANSACTIONS, facts
from catchment.model.errors import SourceUnreachable


class Schedule:
    """What happens next, in seconds from the beginning: it depends on the arguments only, never on a clock.

    ``rate``: orders a second, on average. ``ahead``: steps of orders that were placed before.
    """

    def __init__(self, seed: int, rate: float, ahead: Iterable[Planned] = ()) -> None:
        self._rate = rate
        self._pauses = random.Random(f"{seed} pauses")  # noqa: S311 -- nothing secret
        self._lives = lives(f"{seed} now", NOW)
        self._numbers = count()
        self._events: list[tuple[float, int, Life | Planned]] = []
        for planned in ahead:
            self._add(planned.seconds, planned)
        self._add_order(0.0)

    def next(self) -> tuple[float, Life | Planned]:
        """When it happens, and what: an order to be placed, or the next step of one that was."""
        seconds, _, event = heapq.heappop(self._events)
        if isinstance(event, Life):
            self._add_order(seconds)
        return seconds, event

    def placed(self, order: int, life: Life, seconds: float) -> None:
        """The order that was to be placed then has this number."""
        for step, after in life.steps.items():
            self._add(seconds + after, Planned(seconds + after, order, step, life))

    def _add_order(self, seconds: float) -> None:
        self._add(seconds + self._pauses.expovariate(self._rate), next(self._lives))

    def _add(self, seconds: float, event: Life | Planned) -> None:
        heapq.heappush(self._events, (seconds, next(self._numbers), event))


def trade(databases: Mapping[str, str], schedule: Schedule, ending: threading.Event) -> None:
    """Let the schedule happen until ``ending``; ``databases`` are the services' dsn by name. Raises SourceUnreachable.

    When the servers do not keep up everything happens later, in the same order.
    """
    with ExitStack() as stack:
        services = {name: stack.enter_context(_connected(name, dsn)) for name, dsn in databases.items()}
        begun = time.monotonic()
        while True:
            seconds, event = schedule.next()
            if ending.wait(max(0.0, begun + seconds - time.monotonic())):
                return
            if isinstance(event, Life):
                schedule.placed(_place(services["orders"], event), event, seconds)
            else:
                _take_step(services, event)


def _place(orders: psycopg.Connection, life: Life) -> int:
    known = facts(life)
    with _translated("orders"), orders.transaction():
        (order,) = orders.execute(PLACE, known).fetchone() or (0,)
        orders.execute(PLACE_LINES, {**known, "order": order})
    return int(order)


def _take_step(services: Mapping[str, psycopg.Connection], planned: Planned) -> None:
    known = {**facts(planned.life), "order": planned.order}
    for transaction in TRANSACTIONS[planned.step]:
        service = services[transaction.service]
        with _translated(transaction.service), service.transaction():
            for statement in transaction.statements:
                service.execute(statement, known)


@contextmanager
def _connected(service: str, dsn: str) -> Iterator[psycopg.Connection]:
    with _translated(service):
        connection = psycopg.connect(dsn, autocommit=True)
    with connection:
        yield connection


@contextmanager
def _translated(service: str) -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        what = f"the traffic ended: {error}"
        raise SourceUnreachable(what, source=service, remedy="start the demo anew") from error
