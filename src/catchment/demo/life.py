"""What happens to an order, decided by chance when it is placed.

Every order has a *life*: who placed it, what is in it, and when it takes which step. The past and the live traffic both
draw lives here; that they differ in pace is the only difference between them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from catchment.demo.assortment import ARTICLES, CUSTOMERS, Article, country


class Step(StrEnum):
    """What an order may go through once it is placed."""

    PAID = "paid"
    PAID_AGAIN = "paid again"
    PACKED = "packed"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    RETURNED = "returned"
    REFUNDED = "refunded"


@dataclass(frozen=True, slots=True)
class Line:
    """So many pieces of one article."""

    article: Article
    quantity: int


@dataclass(frozen=True, slots=True)
class Life:
    """``steps``: how many seconds after it was placed the order takes each of them; what is not there never happens."""

    customer: int
    lines: tuple[Line, ...]
    method: str
    warehouse: str
    carrier: str
    steps: dict[Step, float]

    @property
    def total(self) -> Decimal:
        """In euros."""
        return Decimal(sum(line.quantity * line.article.cents for line in self.lines)) / 100

    @property
    def pieces(self) -> int:
        """How many there are to pack."""
        return sum(line.quantity for line in self.lines)

    @property
    def kilograms(self) -> Decimal:
        """What the parcel weighs."""
        return Decimal(sum(line.quantity * line.article.grams for line in self.lines)) / 1000


@dataclass(frozen=True, slots=True)
class Planned:
    """The next step of an order that is in the orders service's table, so many seconds from now."""

    seconds: float
    order: int
    step: Step
    life: Life


_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How many seconds each step typically takes; ``delivery`` by the carriers there are."""

    payment: float
    packing: float
    pickup: float
    delivery: dict[str, float]
    doubt: float
    """Until somebody cancels, sends back, or finds a mistake."""


THEN = Pace(
    payment=5 * _MINUTE,
    packing=9 * _HOUR,
    pickup=5 * _HOUR,
    delivery={"post": 40 * _HOUR, "northline": 26 * _HOUR, "parcelo": 62 * _HOUR},
    doubt=4 * _DAY,
)
"""As it used to be."""

NOW = Pace(payment=1.5, packing=6.0, pickup=4.0, delivery={"drone": 9.0}, doubt=15.0)
"""The trial that the company began today, so that whoever watches sees an order arrive."""

_CARRIERS = {
    **dict.fromkeys(("DE", "NL", "BE"), ("northline", "northline", "post")),
    **dict.fromkeys(("FR", "IT", "ES"), ("parcelo", "parcelo", "post")),
}
_WAREHOUSES = {"FR": "lyo", "ES": "lyo", "BE": "lyo", "PT": "lyo", "IT": "ver", "AT": "ver"}
_METHODS = {"card": 55, "wallet": 25, "transfer": 12, "invoice": 8}
_FATES = {
    "smooth": 84.0,
    "cancelled": 4.0,
    "returned": 4.0,
    "paid twice": 2.0,
    "shipped before payment": 1.5,
    "never paid": 1.5,
    "never packed": 1.0,
    "never picked up": 1.0,
    "never delivered": 1.0,
}
"""Percent."""


def lives(seed: int | str, pace: Pace) -> Iterator[Life]:
    """The same lives for the same seed, without end."""
    chance = random.Random(seed)  # noqa: S311 -- nothing secret
    while True:
        yield _life(chance, pace)


def _life(chance: random.Random, pace: Pace) -> Life:
    customer = chance.randint(1, CUSTOMERS)
    home = country(customer)
    choice = [carrier for carrier in _CARRIERS.get(home, ("post",)) if carrier in pace.delivery]
    carrier = chance.choice(choice or list(pace.delivery))
    return Life(
        customer=customer,
        lines=tuple(
            Line(article, chance.choice((1, 1, 1, 2, 3)))
            for article in chance.sample(ARTICLES, chance.choice((1, 1, 2, 2, 3, 5)))
        ),
        method=_one_of(chance, _METHODS),
        warehouse=_WAREHOUSES.get(home, "ham"),
        carrier=carrier,
        steps=_steps(chance, _one_of(chance, _FATES), pace, pace.delivery[carrier]),
    )


def _steps(chance: random.Random, fate: str, pace: Pace, delivery: float) -> dict[Step, float]:
    paid = _about(chance, pace.payment)
    packed = paid + _about(chance, pace.packing)
    shipped = packed + _about(chance, pace.pickup)
    delivered = shipped + _about(chance, delivery)
    late = _about(chance, pace.doubt)
    steps = {Step.PAID: paid, Step.PACKED: packed, Step.SHIPPED: shipped, Step.DELIVERED: delivered}
    match fate:
        case "cancelled" if chance.random() < 0.5:
            return {Step.CANCELLED: paid}
        case "cancelled":
            cancelled = (paid + packed) / 2
            return {Step.PAID: paid, Step.CANCELLED: cancelled, Step.REFUNDED: cancelled + late}
        case "returned":
            returned = delivered + late
            steps |= {Step.RETURNED: returned}
            return steps | {Step.REFUNDED: returned + late} if chance.random() < 0.8 else steps
        case "paid twice":
            again = paid + _about(chance, pace.payment)
            steps |= {Step.PAID_AGAIN: again}
            return steps | {Step.REFUNDED: again + late} if chance.random() < 0.6 else steps
        case "shipped before payment":
            return steps | {Step.PAID: shipped + late}
        case "never paid":
            return {}
        case "never packed":
            return {Step.PAID: paid}
        case "never picked up":
            del steps[Step.SHIPPED], steps[Step.DELIVERED]
        case "never delivered":
            del steps[Step.DELIVERED]
    return steps


def _about(chance: random.Random, typical: float) -> float:
    """Half of them take longer than ``typical``, one in twenty more than double."""
    return chance.lognormvariate(math.log(typical), 0.45)


def _one_of(chance: random.Random, shares: Mapping[str, float]) -> str:
    (one,) = chance.choices(list(shares), list(shares.values()))
    return one
