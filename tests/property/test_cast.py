"""Typed values are what PostgreSQL printed, or the text is kept beside them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catchment.changes.cast import type_of, typed
from catchment.model.table import Column


def column(name: str, typmod: int = -1, schema: str = "pg_catalog") -> Column:
    return Column(1, "x", schema, name, typmod, nullable=True)


def numeric(precision: int, scale: int) -> int:
    return (precision << 16 | scale & 0x7FF) + 4


def cast(texts: list[str | None], of: Column) -> tuple[list[Any], list[str | None]]:
    found = typed(pa.array(texts, pa.string()), type_of(of))
    assert found.values.type == type_of(of)
    return found.values.to_pylist(), found.exact.to_pylist() if found.exact is not None else [None] * len(texts)


def shown(value: Any, of: Column) -> str | None:
    """A value as PostgreSQL prints it."""
    match value:
        case None:
            return None
        case bool():
            return "t" if value else "f"
        case bytes():
            return "\\x" + value.hex()
        case datetime():
            zone = "+00" if of.type_name == "timestamptz" else ""
            return value.strftime(f"{value.year:04}-%m-%d %H:%M:%S.%f").rstrip("0").rstrip(".") + zone
        case Decimal():
            return f"{value:f}"
        case list():
            inner = column(of.type_name[1:], of.typmod)
            return "{" + ",".join(quoted(shown(each, inner)) for each in value) + "}"
    return str(value)


def quoted(text: str | None) -> str:
    if text is None:
        return "NULL"
    if text and text.upper() != "NULL" and not set(text) & set('{}",\\ \t\n\r\v\f'):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


times = st.datetimes().map(lambda time: time.replace(tzinfo=UTC))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
digits = st.integers(-(10**10) + 1, 10**10 - 1).map(lambda number: Decimal(number).scaleb(-4))
KINDS: list[tuple[Column, st.SearchStrategy[Any]]] = [
    (column("bool"), st.booleans()),
    (column("int2"), st.integers(-(2**15), 2**15 - 1)),
    (column("int4"), st.integers(-(2**31), 2**31 - 1)),
    (column("int8"), st.integers(-(2**63), 2**63 - 1)),
    (column("oid"), st.integers(0, 2**32 - 1)),
    (column("numeric", numeric(10, 4)), digits),
    (column("numeric", numeric(38, 0)), st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal)),
    (column("numeric", numeric(5, 8)), st.integers(-99999, 99999).map(lambda number: Decimal(number).scaleb(-8))),
    (column("numeric", numeric(3, -2)), st.integers(-999, 999).map(lambda number: Decimal(number * 100))),
    (column("bytea"), st.binary(max_size=20)),
    (column("date"), st.dates()),
    (column("timestamp"), times),
    (column("timestamptz"), times),
    (column("text"), texts),
]
NOT_HELD = {
    "numeric": ["NaN", "Infinity", "-Infinity"],
    "date": ["infinity", "-infinity", "0044-03-15 BC", "10000-01-01"],
    "timestamp": ["infinity", "0044-03-15 12:00:00 BC", "294276-12-31 23:59:59.999999"],
    "timestamptz": ["-infinity", "0044-03-15 12:00:00.5+00 BC", "10000-01-01 00:00:00+00"],
}


@pytest.mark.parametrize(("of", "values"), KINDS, ids=lambda kind: getattr(kind, "type_name", ""))
@settings(max_examples=30)
@given(data=st.data())
def test_promise_4_a_typed_value_is_the_one_that_postgresql_printed(
    of: Column, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    told = data.draw(st.lists(st.none() | values))
    not_held = NOT_HELD.get(of.type_name, [])
    texts = [shown(value, of) for value in told] + not_held
    found, exact = cast(texts, of)
    assert [shown(value, of) for value in found] == [shown(value, of) for value in told] + [None] * len(not_held)
    assert exact == [None] * len(told) + not_held


@pytest.mark.parametrize(("of", "values"), KINDS, ids=lambda kind: getattr(kind, "type_name", ""))
@settings(max_examples=30)
@given(data=st.data())
def test_promise_4_an_array_of_one_dimension_is_a_list_and_any_other_keeps_its_text(
    of: Column, values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    of = column(f"_{of.type_name}", of.typmod)
    told = data.draw(st.lists(st.none() | st.lists(st.none() | values, max_size=5)))
    not_held = ["{{NULL,NULL},{NULL,NULL}}", "[2:3]={NULL,NULL}"]
    not_held += ["{" + ",".join([text, "NULL"]) + "}" for text in NOT_HELD.get(of.type_name[1:], [])]
    texts = [shown(value, of) for value in told] + not_held
    found, exact = cast(texts, of)
    assert [shown(value, of) for value in found] == [shown(value, of) for value in told] + [None] * len(not_held)
    assert exact == [None] * len(told) + not_held


@pytest.mark.parametrize("of", [column("float4"), column("float8")], ids=["float4", "float8"])
@given(values=st.lists(st.floats(width=32)))
def test_promise_4_a_float_is_the_very_same_bits(of: Column, values: list[float]) -> None:
    texts = [repr(value).replace("inf", "Infinity").replace("nan", "NaN") for value in values]
    found, exact = cast(list(texts), of)
    assert not any(exact)
    assert [(math.isnan(a) or a, math.copysign(1, a)) for a in found if not math.isnan(a)] == [
        (b, math.copysign(1, b)) for b in values if not math.isnan(b)
    ]
    assert list(map(math.isnan, found)) == list(map(math.isnan, values))


@pytest.mark.parametrize(
    "of",
    [column("numeric"), column("numeric", numeric(39, 0)), column("interval"), column("mood", schema="public")],
    ids=["numeric", "numeric(39)", "interval", "enum"],
)
def test_what_has_no_type_of_its_own_stays_text(of: Column) -> None:
    assert cast(["1.50", None, "NaN"], of) == (["1.50", None, "NaN"], [None] * 3)
    assert type_of(of) == pa.string()
