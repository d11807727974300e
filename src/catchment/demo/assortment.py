"""What the company sells, and to whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Article:
    """``cents``: the price of one piece; ``grams``: its weight."""

    sku: str
    name: str
    cents: int
    grams: int
    attributes: dict[str, Any]


ARTICLES = (
    Article("tent-2", "Tent for two", 18900, 2400, {"colours": ["green", "sand"], "persons": 2}),
    Article("tent-4", "Tent for four", 32900, 4900, {"colours": ["green"], "persons": 4}),
    Article("bag-down", "Sleeping bag, down", 24900, 900, {"degrees": -8}),
    Article("bag-light", "Sleeping bag, light", 8900, 700, {"degrees": 10}),
    Article("mat", "Sleeping mat", 4950, 480, {"centimetres": 5.0}),
    Article("pack-30", "Backpack, 30 litres", 9900, 1100, {"litres": 30}),
    Article("pack-60", "Backpack, 60 litres", 15900, 1900, {"litres": 60, "rain cover": True}),
    Article("stove", "Gas stove", 5490, 310, {"watts": 2800}),
    Article("pot", "Pot with lid", 2995, 260, {"litres": 1.4}),
    Article("bottle", "Bottle", 1850, 180, {"litres": 0.75, "colours": ["blue", "red", "steel"]}),
    Article("lamp", "Headlamp", 3950, 95, {"lumens": 350}),
    Article("knife", "Folding knife", 2750, 85, {"steel": "12C27"}),
    Article("boots", "Hiking boots", 16900, 1250, {"sizes": [37, 38, 39, 40, 41, 42, 43, 44, 45]}),
    Article("socks", "Wool socks", 1690, 90, {"sizes": ["S", "M", "L"]}),
    Article("jacket", "Rain jacket", 13950, 420, {"sizes": ["S", "M", "L", "XL"]}),
    Article("map", "Hiking map 1:25 000", 1290, 70, {"waterproof": True}),
)

CUSTOMERS = 3000
"""Their ids are 1 to this number."""

_SHARES = {"DE": 7, "FR": 5, "IT": 4, "ES": 3, "NL": 2, "AT": 2, "BE": 1, "PT": 1}
COUNTRIES = tuple(country for country, share in _SHARES.items() for _ in range(share))
"""The customer with the id n lives in the country at n modulo its length."""

FIRST_NAMES = [
    "Ada",
    "Bruno",
    "Chiara",
    "Daan",
    "Elena",
    "Felix",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Klara",
    "Luca",
    "Marta",
    "Nils",
    "Olga",
    "Paulo",
    "Rosa",
    "Simon",
    "Teresa",
    "Vera",
]
LAST_NAMES = [
    "Almeida",
    "Bakker",
    "Conti",
    "Dubois",
    "Eder",
    "Fischer",
    "Garcia",
    "Huber",
    "Janssen",
    "Keller",
    "Lefèvre",
    "Moretti",
    "Novo",
    "Peeters",
]


def country(customer: int) -> str:
    """Where this customer lives."""
    return COUNTRIES[customer % len(COUNTRIES)]
