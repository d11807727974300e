"""What single settings of catchment.toml may be; what is wrong with one that may not, and what to write instead."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from catchment.variables import expanded, put_in

OBJECT_STORES = ("s3://", "gs://", "az://")
"""What the URI of a lake that is on no local disk begins with."""

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_RESERVED = {"catchment", "public"}
_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+)):([0-9]{1,5})")
_DECIMAL = re.compile(r"decimal\(([0-9]{1,2}), ?([0-9]{1,2})\)")
_MOST_DIGITS = 38


class Mistake(ValueError):
    """What is wrong with a setting, and what to write instead."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.remedy = remedy


def _name(value: str) -> str:
    if not _NAME.fullmatch(value) or len(value) > 30:
        raise Mistake(
            "a name is made of a-z, 0-9 and single _, begins with a letter and has at most 30 characters",
            'write for instance name = "orders_eu"',
        )
    if value in _RESERVED or value.startswith("pg_"):
        raise Mistake(f"{value} is reserved", 'write another one, for instance name = "orders"')
    return value


def _slot(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{1,63}", value):
        raise Mistake(
            "a slot's name is made of a-z, 0-9 and _, at most 63 characters",
            'write for instance slot = "catchment_orders", or leave it out',
        )
    return value


def _variable(name: str) -> str:
    if (found := os.environ.get(name)) is None:
        raise Mistake(
            f"the environment variable {name} is not set", f"export {name} where this command and the hub run"
        )
    return found


def _expanded_dsn(value: str) -> str:
    return expanded(value, _variable)


def _expanded(value: str) -> str:
    return put_in(value, _variable)


def _feed_path(value: str) -> str:
    if "{source}" not in value:
        raise Mistake(
            "the path needs {source} in it, so that each source has a file of its own",
            'write for instance path = "feed/{source}.jsonl"',
        )
    return value


def _lake_uri(value: str) -> str:
    value = _expanded(value)
    if value.startswith("file://"):
        return value.removeprefix("file://")
    if "://" in value and not value.startswith(OBJECT_STORES):
        raise Mistake(
            f"a lake cannot be at {value.partition('://')[0]}://",
            'write for instance uri = "file:///data/lake", or "s3://bucket/lake"',
        )
    return value


def _duration(value: object) -> object:
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise Mistake("a duration is a whole number and s, m, h or d", 'write for instance keep = "7d"')
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _decimal(value: object) -> object:
    found = _DECIMAL.fullmatch(value) if isinstance(value, str) else None
    if found is None or not int(found[2]) <= int(found[1]) <= _MOST_DIGITS or int(found[1]) == 0:
        raise Mistake(
            f"a column is given a decimal of at most {_MOST_DIGITS} digits, its name in quotes",
            'write for instance "orders.public.accounts.balance" = "decimal(38,10)"',
        )
    return value


def _address(value: str) -> str:
    found = _ADDRESS.fullmatch(value)
    if found is None or not 0 < int(found[3]) < 2**16:
        raise Mistake("an address is host:port", 'write for instance listen = "127.0.0.1:9187", or "[::1]:9187"')
    return value


Name = Annotated[str, AfterValidator(_name)]
SlotName = Annotated[str, AfterValidator(_slot)]
Dsn = Annotated[str, Field(min_length=1, repr=False), AfterValidator(_expanded_dsn)]
Option = Annotated[str, AfterValidator(_expanded)]
Address = Annotated[str, AfterValidator(_address)]
FeedPath = Annotated[str, AfterValidator(_feed_path)]
LakeUri = Annotated[str, Field(min_length=1), AfterValidator(_lake_uri)]
Decimal = Annotated[str, BeforeValidator(_decimal)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
